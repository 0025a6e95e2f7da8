"""
A forest and a network under one scorer
=======================================

Both are pipelines on a table in raw units, with names of columns. A scorer does not care what a
classifier is made of: the same balls, in the units of the data, are proved for both.
"""

# %%
# Breast cancer: 10 means of cell nuclei, from areas of some hundreds to fractal dimensions of
# 0.06. An ``epsilon`` a column is 2 % of its range in the training data.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skrobust import RobustClassifier
from skrobust.displays import RobustnessCurveDisplay
from skrobust.pointwise import pointwise_robustness
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import AdversarialFrequency, ConstraintSatisfaction

data = load_breast_cancer(as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(
    data.data, data.target, test_size=40, random_state=0
)
means = make_column_selector("^mean ")


def front():
    return make_column_transformer((StandardScaler(), means))


models = {
    "forest": make_pipeline(front(), RandomForestClassifier(20, max_depth=5, random_state=0)),
    "network": make_pipeline(
        front(), RobustClassifier(hidden_layer_sizes=20, max_epochs=30, random_state=0)
    ),
}
for model in models.values():
    model.fit(X_train, y_train)

# %%
# The scaler is a part of both models: as the first layer of the network, and in the thresholds of
# the trees, which move to raw units with all of the rounding that the scaler does.

epsilon = 0.02 * np.ptp(X_train.to_numpy(), axis=0)
property = ClassificationRobustness(epsilon, bounds=None)
scorer = ConstraintSatisfaction(property)
for name, model in models.items():
    result = scorer.evaluate(model, X_test, y_test)
    print(f"{name:8} accuracy {model.score(X_test, y_test):.3f}, {result}")

# %%
# Pointwise robustness is one number for all columns, so it is asked about scaled data: how far is
# the closest other label, in standard deviations? For the forest the answer is exact.

radii, scaled = {}, {name: model[:-1].transform(X_test)[:12] for name, model in models.items()}
for name, method in {"forest": "exact", "network": "polished"}.items():
    options = {"bounds": None, "epsilon_max": 0.5, "method": method}
    radii[name] = pointwise_robustness(models[name][-1], scaled[name], random_state=0, **options)
    scorer = AdversarialFrequency(0.1, method=method, bounds=None, random_state=0)
    frequency = scorer.evaluate(models[name][-1], scaled[name]).frequency
    print(f"{name:8} {radii[name]}\n{'':8} another label within 0.1: {frequency:.2f}")

display = RobustnessCurveDisplay.from_radius(radii)
display.ax_.set_xlabel("distance in standard deviations")
plt.show()
