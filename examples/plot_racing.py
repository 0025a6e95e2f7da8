"""
A search that stops asking about losers
=======================================

Scoring robustness costs more than training a small model. A racing search evaluates all candidates
on the same growing batches of samples, and drops whoever is shown to be worse than another one.
"""

# %%
# Candidates are plain and adversarial training, for several radii. What counts is how many samples
# withstand PGD; FGSM is the screen: what it breaks needs no longer attack.

import matplotlib.pyplot as plt
import numpy as np

from skrobust import RobustClassifier
from skrobust.attacks import FGSM, PGD
from skrobust.datasets import load_digits
from skrobust.model_selection import RacingSearchCV
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity
from skrobust.training import AdversarialTraining, StandardTraining

X, y = load_digits(return_X_y=True)
property = ClassificationRobustness(epsilon=0.1)
model = RobustClassifier(hidden_layer_sizes=(30,), max_epochs=10, random_state=0)
grid = [
    {"training": [StandardTraining()], "lr": [0.001, 0.01]},
    {
        "training": [AdversarialTraining(PGD(3))],
        "property": [ClassificationRobustness(epsilon) for epsilon in (0.02, 0.05, 0.1)],
        "lr": [0.01],
    },
]
search = RacingSearchCV(
    model,
    grid,
    scoring=ConstraintSecurity(property, PGD(40), random_state=0),
    screen=ConstraintSecurity(property, FGSM()),
    cv=2,
    random_state=0,
    verbose=1,
)
search.fit(X[:600], y[:600])

# %%
# How far each candidate came, and what the race saved.

results = search.cv_results_
print(f"Best: {search.best_params_}, security {search.best_score_:.3f}")
print(f"{search.n_evaluations_} of {search.n_evaluations_full_} evaluations")

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
places = np.arange(len(results["params"]))
axes.barh(places, results["n_drawn"], color="0.85", label="drawn")
axes.barh(places, results["n_evaluations"], label="attacked by PGD")
axes.set(xlabel="samples", ylabel="candidate", yticks=places)
axes.invert_yaxis()
figure.legend(loc="outside upper right", ncols=2)
plt.show()
