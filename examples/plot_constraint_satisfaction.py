"""
Constraint satisfaction: what is proved
=======================================

Sampling and attacks look for violations; a verifier proves that there are none. The share of
inputs around which a property is proved lies below the share that no attack has broken, and
training decides how far below.
"""

# %%
# Three ways to train the same small network, one of them on bounds of its outputs.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from skrobust import RobustClassifier
from skrobust.datasets import load_digits
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintAccuracy, ConstraintSatisfaction, ConstraintSecurity
from skrobust.training import AdversarialTraining, CertifiedTraining, StandardTraining
from skrobust.verification import Bounds, Cascade

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=200, random_state=0)
models = {
    name: RobustClassifier(
        hidden_layer_sizes=(32,),
        property=ClassificationRobustness(0.1),
        training=training,
        max_epochs=30,
        lr=5e-3,
        random_state=0,
    ).fit(X_train, y_train)
    for name, training in {
        "standard": StandardTraining(),
        "adversarial": AdversarialTraining(),
        "certified": CertifiedTraining(),
    }.items()
}

# %%
# A cascade decides each point: an attack first, then bounds, then the complete method for what
# is left. The result says who decided, and how long it took.

property = ClassificationRobustness(epsilon=0.1)
scorer = ConstraintSatisfaction(property, random_state=0)
result = scorer.evaluate(models["standard"], X_test, y_test)
print(result)
print(result.to_frame().groupby(["decided_by", "verdicts"])["seconds"].agg(["size", "sum"]))

# %%
# The three measures of one property. Bounds alone prove less, but what they prove is true.

rows = {}
for name, model in models.items():
    rows[name] = {
        "accuracy": model.score(X_test, y_test),
        "sampling": ConstraintAccuracy(property, random_state=0)(model, X_test, y_test),
        "attack": ConstraintSecurity(property, random_state=0)(model, X_test, y_test),
        "verified": scorer(model, X_test, y_test),
        "verified by bounds": ConstraintSatisfaction(property, Bounds())(model, X_test, y_test),
    }
print(pd.DataFrame(rows).T.round(3).to_string())

# %%
# Verified and surviving shares over epsilon, with a short time limit: where the two part, points
# are unknown.

epsilons = np.linspace(0.0, 0.2, 7)
X_few, y_few = X_test[:60], y_test[:60]
fig, axes = plt.subplots(1, len(models), figsize=(10, 3.2), sharey=True, layout="constrained")
for (name, model), ax in zip(models.items(), axes, strict=True):
    shares = []
    for epsilon in epsilons:
        asked = ConstraintSatisfaction(
            ClassificationRobustness(epsilon), Cascade(timeout=0.2), random_state=0
        )
        shares.append(asked.metrics(model, X_few, y_few))
    frame = pd.DataFrame(shares, index=epsilons)
    ax.fill_between(epsilons, 0, frame["verified_share"], label="verified", alpha=0.6)
    ax.fill_between(
        epsilons, frame["verified_share"], frame["surviving_share"], label="unknown", alpha=0.6
    )
    ax.fill_between(epsilons, frame["surviving_share"], 1, label="falsified", alpha=0.3)
    ax.set(title=name, xlabel="epsilon", ylim=(0, 1), xlim=(0, epsilons[-1]))
axes[0].set_ylabel("share of the test points")
axes[0].legend(loc="lower left")
plt.show()
