"""
Constraint accuracy: random points of the ball
==============================================

How often does a property hold at a random point near an input? This needs nothing but
`predict`, so any classifier can be compared: here a random forest, a nearest-neighbor
classifier behind a non-linear pipeline step, and a network.
"""

# %%
# Three fitted classifiers.

import matplotlib.pyplot as plt
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from skrobust import RobustClassifier
from skrobust.datasets import load_digits
from skrobust.displays import RobustnessCurveDisplay
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintAccuracy

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=150, random_state=0)
models = {
    "random forest": RandomForestClassifier(25, random_state=0),
    "nearest neighbors": make_pipeline(Normalizer(), KNeighborsClassifier(3)),
    "network": RobustClassifier(max_epochs=20, random_state=0),
}
for model in models.values():
    model.fit(X_train, y_train)

# %%
# Accuracy at random points, as the ball grows. The band is an exact binomial interval.

scorer = ConstraintAccuracy(ClassificationRobustness(), n_samples=10, random_state=0)
display = RobustnessCurveDisplay.from_estimator(
    models, X_test, y_test, scorer=scorer, epsilons=[0, 0.15, 0.3, 0.45]
)

# %%
# The full result has a share for each sample, and the worst point that was drawn around it.

property = ClassificationRobustness(epsilon=0.3)
result = scorer.set_params(property=property).evaluate(models["random forest"], X_test, y_test)
print(result)
print(result.to_frame().describe().loc[["mean", "min", "max"]])
plt.show()
