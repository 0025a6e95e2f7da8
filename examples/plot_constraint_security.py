"""
Constraint security: what an attack cannot break
================================================

The share of inputs around which an attack finds no violation, for the four properties of
Casadio et al., in the raw input space of a pipeline.
"""

# %%
# A projection is affine, so that the pipeline is one network: epsilon, the bounds and the
# counterexamples are in pixels.

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skrobust import RobustClassifier
from skrobust.attacks import FGSM, PGD, AutoPGD, UniformSampling
from skrobust.datasets import load_digits
from skrobust.displays import AdversarialExamplesDisplay
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.scorers import ConstraintSecurity

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=300, random_state=0)
model = make_pipeline(PCA(20), RobustClassifier(max_epochs=20, random_state=0))
model.fit(X_train, y_train)

# %%
# One attack, four properties.

properties = [
    ClassificationRobustness(epsilon=0.1),
    StandardRobustness(epsilon=0.1, delta=3.0),
    StrongClassificationRobustness(epsilon=0.1, eta=0.52),
    LipschitzRobustness(epsilon=0.1, lipschitz=40.0),
]
for property in properties:
    result = ConstraintSecurity(property, random_state=0).evaluate(model, X_test, y_test)
    print(f"{type(property).__name__:32} {result.score:.3f}  {result.interval}")

# %%
# One property, several attacks: the stronger the attack, the smaller the share that withstands.

property = properties[0]
attacks = [UniformSampling(40), FGSM(), PGD(10), PGD(40, n_restarts=3), AutoPGD(40)]
scores = {
    str(attack): ConstraintSecurity(property, attack, random_state=0)(model, X_test, y_test)
    for attack in attacks
}
print(pd.Series(scores, name="security").to_string())

# %%
# Counterexamples, as the pipeline itself sees them.

display = AdversarialExamplesDisplay.from_estimator(
    model, X_test, y_test, scorer=ConstraintSecurity(property, random_state=0)
)
plt.show()
