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
X_train, X_test, y_train, y_test = X[:1000], X[1000:1300], y[:1000], y[1000:1300]
models = {
    "random forest": RandomForestClassifier(25, random_state=0),
    "nearest neighbors": KNeighborsClassifier(3),
    "network": RobustClassifier(max_epochs=20, random_state=0),
}
for model in models.values():
    model.fit(X_train, y_train)

# %%
# The five presets. R1 to R3 draw uniform points in the ball; R4 and R5 take the data's own
# neighbors, here in L2 balls that are wide enough to hold some.

near, far = [0.1, 0.2, 0.3], [1.0, 1.5, 2.0]
scores = {
    "R1": RobustnessScore.preset("R1", 0.2, n_samples=30, random_state=0),
    "R2": RobustnessScore.preset("R2", near, n_samples=30, random_state=0),
    "R3": RobustnessScore.preset("R3", near, n_samples=30, random_state=0),
    "R4": RobustnessScore.preset("R4", far, norm="l2"),
    "R5": RobustnessScore.preset("R5", far, norm="l2"),
}
table = {
    name: {score: scorer(model, X_test, y_test) for score, scorer in scores.items()}
    for name, model in models.items()
}
print(pd.DataFrame(table).T.round(3).to_string())

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
