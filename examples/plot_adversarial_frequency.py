"""
Adversarial frequency and severity: the closest other label
===========================================================

How often is there another label within epsilon, and how close is it? After Bastani et al., both
are read from the pointwise robustness: the distance from each input to the closest adversarial
example, found by a linear program over the linear region of the network.
"""

# %%
# A plain network, and one that was trained on adversarial points.

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.model_selection import train_test_split

from skrobust import RobustClassifier
from skrobust.datasets import load_digits
from skrobust.displays import RobustnessCurveDisplay
from skrobust.pointwise import pointwise_robustness
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import AdversarialFrequency, AdversarialSeverity
from skrobust.training import AdversarialTraining

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=30, random_state=0)
property = ClassificationRobustness(epsilon=0.1)
models = {
    "standard": RobustClassifier(hidden_layer_sizes=30, max_epochs=15, random_state=0),
    "adversarial": RobustClassifier(
        hidden_layer_sizes=30,
        max_epochs=15,
        random_state=0,
        property=property,
        training=AdversarialTraining(),
    ),
}
for model in models.values():
    model.fit(X_train, y_train)

# %%
# Two scores, one computation: minus the frequency, and the severity. Each is a scorer of its own
# as well, with the interval of its score.

scorer = AdversarialFrequency(0.1, method="polished", random_state=0)
scores = {name: scorer.metrics(model, X_test) for name, model in models.items()}
print(pd.DataFrame(scores).T.to_string(float_format="{:.3f}".format))
severity = AdversarialSeverity(0.1, method="polished", random_state=0)
print(severity.evaluate(models["adversarial"], X_test))

# %%
# The linear program alone looks at the region of each input; "polished" goes on from the best
# attack, and "certified" is a proven lower bound.

methods = ("certified", "polished", "attack", "lp")
found = {
    method: pointwise_robustness(models["standard"], X_test, method=method, random_state=0)
    for method in methods
}
for method, result in found.items():
    print(f"{method:10} {result}")

display = RobustnessCurveDisplay.from_radius(found)
display.ax_.set_ylabel("share of inputs without an example found")
plt.show()
