"""
One framework, many robustness scores
=====================================

The scores of Tibo et al. differ in three choices: where the points near an input come from
(`neighborhood`, Q in the paper), what the share of them that keep the label is worth
(`transform`, H), and which radii count (`weight`, G). Corruptions of images are one step further
away from an adversary. All of it works with any classifier.
"""

# %%
# Three classifiers.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

from skrobust import RobustClassifier
from skrobust.datasets import load_digits
from skrobust.displays import CorruptionDisplay
from skrobust.scorers import CorruptionRobustness, RobustnessScore

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = X[:1000], X[1000:1100], y[:1000], y[1000:1100]
models = {
    "random forest": RandomForestClassifier(25, random_state=0),
    "nearest neighbors": KNeighborsClassifier(3),
    "network": RobustClassifier(max_epochs=20, random_state=0),
}
for model in models.values():
    model.fit(X_train, y_train)

# %%
# The scores that the paper names, in its own units: not normalized, in L2, and over all radii.
# The margins of R1 (of points uniform in the cube) and R2 (of the data) come from attacks, so
# only the network has them. R4 and the examples 3 and 5 look at the other data.

names = ["R1", "R2", "R4", "example-3", "example-5-data", "example-5-uniform"]
rows = {}
for name in names:
    scorer = RobustnessScore.preset(name, n_samples=20, random_state=0)
    rows[f"{name} (type {scorer.type})"] = {
        title: scorer(model, X_test, y_test)
        for title, model in models.items()
        if title == "network" or scorer.attack is None
    }
print(pd.DataFrame(rows).T.round(3).to_string())

# %%
# Each also as a share of what a constant classifier has, which is the most that there is; and
# three scores of this library, which are shares from the start.

near = [0.1, 0.2, 0.3]
network = models["network"]
for name in names:
    result = RobustnessScore.preset(name, n_samples=20, random_state=0).evaluate(
        network, X_test, y_test
    )
    print(f"{name:20} {result.score:.3f}, normalized {result.normalized:.3f}")
for name in ("success-rate", "uniform-share"):
    scorer = RobustnessScore.preset(name, near, n_samples=30, random_state=0)
    print(f"{name:20}", {title: round(scorer(m, X_test), 3) for title, m in models.items()})

# %%
# A generator of your own as the neighborhood: stripes of brightness, like a lamp that flickers.


def flicker(X, labels, epsilon, n_samples, generator):
    rows = generator.uniform(-epsilon, epsilon, (len(X), n_samples, 8, 1))
    change = np.broadcast_to(rows, (len(X), n_samples, 8, 8)).reshape(len(X), n_samples, 64)
    return np.clip(X[:, None] + change, 0, 1)


scorer = RobustnessScore(flicker, "identity", "radii", near, n_samples=30, random_state=0)
for name, model in models.items():
    result = scorer.evaluate(model, X_test)
    print(f"{name:20}", [f"{share:.3f}" for share in result.curve])

# %%
# Corruptions: accuracy under each.

CorruptionDisplay.from_estimator(
    models, X_test, y_test, scorer=CorruptionRobustness(severity=3, random_state=0)
)
plt.show()
