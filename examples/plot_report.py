"""
A forest and a network, compared under one scorer
=================================================

Scorers and reports take any classifier. Here a random forest, whose robustness is decided exactly
by its boxes, stands beside a network that was trained for robustness.
"""

# %%
# Two classifiers of about the same accuracy.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from skrobust import RobustClassifier, robustness_report
from skrobust.datasets import load_digits
from skrobust.displays import RobustnessCurveDisplay
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSatisfaction
from skrobust.training import AdversarialTraining

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=100, random_state=0)
property = ClassificationRobustness(epsilon=0.1)
models = {
    "forest": RandomForestClassifier(10, max_depth=8, random_state=0).fit(X_train, y_train),
    "network": RobustClassifier(
        hidden_layer_sizes=(30,),
        property=property,
        training=AdversarialTraining(),
        max_epochs=15,
        random_state=0,
    ).fit(X_train, y_train),
}
for name, model in models.items():
    print(f"{name}: accuracy {model.score(X_test, y_test):.2f}")

# %%
# The share of images around which the label is proved to stay, for both by a complete method: for
# trees by branch and bound over their thresholds, for networks by a cascade.

epsilons = [0.0, 0.02, 0.05, 0.1]
scorer = ConstraintSatisfaction(property, random_state=0)
RobustnessCurveDisplay.from_estimator(
    models, X_test[:50], y_test[:50], scorer=scorer, epsilons=epsilons
)

# %%
# A report measures everything that can be measured, and says what cannot. `to_html` writes it as
# one page that opens without a network, `to_json` with the fields of a model card.

with tempfile.TemporaryDirectory() as folder:
    for name, model in models.items():
        report = robustness_report(
            model,
            X_test[:50],
            y_test[:50],
            epsilons=[0.02, 0.1],
            image_shape=(8, 8),
            details={"training_data": "1697 images of handwritten digits, 8 by 8 pixels"},
            random_state=0,
        )
        report.to_html(Path(folder) / f"{name}.html")
        print(report.to_frame().query("epsilon == 0.1").round(3).to_string(index=False))
        for title, reason in report.not_measured.items():
            print(f"Not measured: {title}. {reason}")

plt.show()
