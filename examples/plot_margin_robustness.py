"""
How far away is the next mistake?
=================================

`MarginRobustness` asks several attacks for the adversarial example closest to each sample, pulls
what they find to the boundary by bisection, and keeps the closest: its mean distance is the score
R2 of Tibo et al. Here, four trainings of one network, in two norms. The paper's is L2: its
numbers are far larger than those in L-infinity, and the two cannot be compared.
"""

# %%
# Plain training, training at adversarial examples, training with noise, and the paper's own, which
# trains a generator of adversarial examples beside the classifier.

import matplotlib.pyplot as plt
import pandas as pd

from skrobust import RobustClassifier
from skrobust.datasets import load_digits
from skrobust.displays import RobustnessCurveDisplay, WinsDisplay
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import MarginRobustness
from skrobust.training import (
    AdversarialTraining,
    DataAugmentation,
    MarginCoTraining,
    StandardTraining,
)

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = X[:1200], X[1200:1400], y[:1200], y[1200:1400]
trainings = {
    "plain": StandardTraining(),
    "adversarial": AdversarialTraining(),
    "with noise": DataAugmentation(),
    "co-training": MarginCoTraining(),
}
models = {
    name: RobustClassifier(
        property=ClassificationRobustness(0.15), training=training, max_epochs=30, random_state=0
    ).fit(X_train, y_train)
    for name, training in trainings.items()
}

# %%
# The mean margin in each norm, with its interval, and the share of samples at which each attack
# came closest. The true label counts: a sample that is classified wrongly has margin 0.

largest = {"linf": 0.35, "l2": 1.5}
results = {
    (name, norm): MarginRobustness(
        norm, epsilon_max=epsilon_max, reference="label", random_state=0
    ).evaluate(model, X_test, y_test)
    for norm, epsilon_max in largest.items()
    for name, model in models.items()
}
rows = {
    key: {
        "accuracy": (result.radius > 0).mean(),
        "mean margin": result.score,
        "low": result.interval.low,
        "high": result.interval.high,
        "area": result.area,
        **{f"won by {attack}": share for attack, share in result.wins.items()},
    }
    for key, result in results.items()
}
print(pd.DataFrame(rows).T.round(3).to_string())

# %%
# The margin curves: the share of samples that no attack fooled within epsilon. The area below a
# curve is the score.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for ax, (norm, epsilon_max) in zip(axes, largest.items(), strict=True):
    radii = {name: results[name, norm] for name in models}
    RobustnessCurveDisplay.from_radius(radii, area=True, ax=ax)
    ax.set(title=norm, xlim=(0, epsilon_max))
plt.show()

# %%
# Which attack came closest, in L2.

WinsDisplay.from_result({name: results[name, "l2"] for name in models})
plt.show()
