"""
Radii in raw units: breast cancer with pandas
=============================================

The features of a table have units of their own: an area in square pixels, a smoothness between 0
and 1. One epsilon for all would let the one hardly move, and the other go anywhere. A radius for
each feature, or a scale, says what is small in each.
"""

# %%
# A pipeline that scales, trained on a frame. Scorers see the raw columns.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skrobust.displays import RobustnessCurveDisplay
from skrobust.pointwise import pointwise_robustness
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import AdversarialFrequency, ConstraintSatisfaction, MarginRobustness

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=60, random_state=0)
network = MLPClassifier((10,), solver="lbfgs", alpha=1.0, max_iter=300, random_state=0)
model = make_pipeline(StandardScaler(), network).fit(X_train, y_train)
bounds = np.minimum(X_train.min(), X_test.min()), np.maximum(X_train.max(), X_test.max())
print(f"accuracy {model.score(X_test, y_test):.3f}")

# %%
# With ``scale="std"`` distances are in units of the spread of the training data, which the
# scaler in the pipeline knows: "no other label within 0.2 standard deviations in any feature".
# The adversarial examples come back in raw units, as a frame with the columns of `X`.

options = {"bounds": bounds, "scale": "std"}
radii = pointwise_robustness(model, X_test, **options)
examples = radii.counterexamples_frame(X_test)
print(examples[["mean radius", "mean area", "mean smoothness"]].head(3).round(3).to_string())
RobustnessCurveDisplay.from_radius(radii).ax_.set_xlabel("standard deviations")
plt.show()

# %%
# The same scale in scores: a share, and a mean margin.

print(AdversarialFrequency(0.2, **options).evaluate(model, X_test))
print(MarginRobustness(**options, random_state=0).evaluate(model, X_test))

# %%
# A property takes a radius for each feature, and a pair of them where a feature moves one way
# only. Here the sizes at the worst cells ("worst ...") were measured by hand, and may be too small
# but not too large; the rest is exact.

spread = model[0].scale_
is_worst = np.array([name.startswith("worst") for name in X.columns])
up_only = ClassificationRobustness((0 * spread, 0.2 * spread * is_worst), bounds=bounds)
both = ClassificationRobustness(0.2 * spread * is_worst, bounds=bounds)
for name, property in {"up only": up_only, "up and down": both}.items():
    result = ConstraintSatisfaction(property, random_state=0).evaluate(model, X_test, y_test)
    print(f"{name}: verified {result.score:.3f}, surviving {result.surviving_share:.3f}")
