"""
Rare violations: one in a thousand, or one in a billion?
========================================================

A few thousand random points around an input tell little once none of them breaks the property.
Multilevel splitting goes on where plain sampling ends: from the draws at which the property holds
least, level by level, until it is broken.
"""

# %%
# A network, trained with and without adversarial examples.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from skrobust import RobustClassifier
from skrobust.datasets import load_digits
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ViolationProbability
from skrobust.training import AdversarialTraining

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=25, random_state=0)
property = ClassificationRobustness(epsilon=0.15)
models = {
    name: RobustClassifier(
        property=property, training=training, max_epochs=20, random_state=0
    ).fit(X_train, y_train)
    for name, training in (("plain", None), ("adversarial", AdversarialTraining()))
}

# %%
# The probability that a random point of the ball breaks the property, for each of 25 images. The
# score is minus the decimal logarithm of the mean, which the few worst images carry: larger is
# better. Where no violation was reached, the probability is an upper bound.

scorer = ViolationProbability(property, random_state=0)
results = {name: scorer.evaluate(model, X_test, y_test) for name, model in models.items()}
for name, result in results.items():
    print(f"{name}: accuracy {models[name].score(X_test, y_test):.3f}")
    print(result)

# %%
# Images in the order of their probabilities, with intervals. Plain sampling of as many points as
# splitting may take at most would hardly ever see a violation below the dotted line.

floor = 1 / scorer.max_evaluations
figure, ax = plt.subplots(layout="constrained")
for name, result in results.items():
    order = np.argsort(result.probabilities)
    places = np.arange(len(order))
    p, low, high = (getattr(result, part)[order] for part in ("probabilities", "low", "high"))
    reached = result.finished[order]
    (line,) = ax.plot(places[reached], p[reached], "o", markersize=4, label=name)
    ax.vlines(places[reached], low[reached], high[reached], color=line.get_color(), alpha=0.5)
    ax.plot(places[~reached], high[~reached], "v", color=line.get_color(), fillstyle="none")
ax.axhline(floor, linestyle=":", color="gray", label=f"1 of {scorer.max_evaluations:,} draws")
ax.set(
    yscale="log",
    xlabel="image, in the order of its probability",
    ylabel="probability that a random point breaks the property",
    title="Triangles are upper bounds",
)
ax.legend()
plt.show()
