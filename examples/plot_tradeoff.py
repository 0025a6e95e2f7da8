"""
Accuracy against robustness, in one search
==========================================

The robustness property and the training regime are hyperparameters; the shares of samples that
are proved robust, and that survive an attack, are scores beside accuracy. One search tries the
combinations, and one picture shows the trade-off.

Run as a script, it takes ``--data`` (digits, mnist, fashion_mnist, cifar10 or gtsrb),
``--samples`` and ``--output``.
"""

# %%
# The data, and what robustness shall mean: no pixel change of at most 0.1 alters the label.

import argparse
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.callback import ProgressBar
from sklearn.model_selection import GridSearchCV, train_test_split

from skrobust import RobustClassifier, datasets
from skrobust.attacks import PGD
from skrobust.displays import (
    AdversarialExamplesDisplay,
    RobustnessCurveDisplay,
    TradeOffDisplay,
)
from skrobust.model_selection import LargestSubjectTo, pareto_front
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintAccuracy, ConstraintSatisfaction, ConstraintSecurity
from skrobust.training import (
    AdversarialTraining,
    CertifiedTraining,
    ConstraintTraining,
    DataAugmentation,
    StandardTraining,
    TradesTraining,
)
from skrobust.verification import Bounds, Cascade

parser = argparse.ArgumentParser(description="Search, print a table, draw pictures.")
parser.add_argument("--data", default="digits", help="digits, mnist, fashion_mnist, ...")
parser.add_argument("--samples", type=int, default=None, help="use only so many samples")
parser.add_argument("--epochs", type=int, default=None, help="training epochs of a candidate")
parser.add_argument("--output", type=Path, default=Path("output"), help="folder for pictures")
arguments = parser.parse_args()

if arguments.data == "digits":
    data = datasets.load_digits()
else:
    data = getattr(datasets, f"fetch_{arguments.data}")(subset="all")
n_samples = arguments.samples or len(data.data)
X_train, X_test, y_train, y_test = train_test_split(
    data.data[:n_samples], data.target[:n_samples], test_size=0.25, random_state=0
)
epochs = arguments.epochs or (30 if arguments.data == "digits" else 5)
property = ClassificationRobustness(epsilon=0.1)

# %%
# Every scorer draws its own random numbers from its seed, so all candidates meet the same test.
# The verifier is a cheap one: an attack, and bounds for what it does not break. So each candidate
# has two shares, of samples that are proved and of samples that survive.

verifier = Cascade([PGD(20), Bounds()])
satisfaction = ConstraintSatisfaction(property, verifier, random_state=0)
constraint_accuracy = ConstraintAccuracy(property, n_samples=50, random_state=0)


def scoring(estimator, X, y):
    shares = satisfaction.metrics(estimator, X, y)
    return {
        "accuracy": estimator.score(X, y),
        "constraint accuracy": constraint_accuracy(estimator, X, y),
        "share surviving": shares["surviving_share"],
        "share proved": shares["verified_share"],
    }


model = RobustClassifier(
    hidden_layer_sizes=(100,), property=property, max_epochs=epochs, random_state=0
)
grid = [
    {"training": [StandardTraining()]},
    {
        "training": [
            DataAugmentation(),
            AdversarialTraining(),
            ConstraintTraining(beta=0.2),
            TradesTraining(),
            CertifiedTraining(decay="none"),  # of the few steps here, none to spare
        ],
        "property__epsilon": [0.03, 0.06, 0.1],
    },
]
# Refitted is the largest share proved at an accuracy that the folds cannot tell from the best.
rule = LargestSubjectTo("share proved", within_standard_errors={"accuracy": 1})
search = GridSearchCV(model, grid, scoring=scoring, refit=rule, cv=3, n_jobs=2)
search.set_callbacks(ProgressBar(max_propagation_depth=0))
start = time.perf_counter()
search.fit(X_train, y_train)
seconds = time.perf_counter() - start

# %%
# The ranked table.

names = ("accuracy", "constraint accuracy", "share surviving", "share proved")
table = pd.DataFrame(search.cv_results_).sort_values("rank_test_share proved")
columns = {"param_property__epsilon": "trained for", "param_training": "training"}
columns |= {f"mean_test_{name}": name for name in names}
table = table[list(columns)].rename(columns=columns)
table["training"] = [" ".join(str(value).split()) for value in table["training"]]
table["trained for"] = table["trained for"].map("{:g}".format).replace("nan", "-")
print(table.to_string(index=False, float_format="{:.3f}".format))
print(f"\n{len(table)} candidates, 3 folds, {len(X_train)} samples: {seconds:.0f} s")

# %%
# No candidate is the best at both: what is to be had is the Pareto front, of which the rule takes
# one.

front = pareto_front(search, ["accuracy", "share proved"])
print(f"Pareto front: {len(front)} candidates, hypervolume {front.hypervolume():.3f}")
place = list(front.indices).index(search.best_index_)
accuracy, proved = front.means[place]
print("Chosen:", " ".join(str(search.best_params_).split()))
print("  by", " ".join(str(rule).split()))
print(f"  accuracy {accuracy:.3f}, share proved {proved:.3f}")

# %%
# The trade-off. A bar goes from the share that is proved to the share that survives the attack:
# what a classifier is worth lies in it. Candidates of one regime are joined in the order of the
# epsilon that they were trained for. Those on the Pareto front are circled, and the line is the
# border of what some candidate reaches.

display = TradeOffDisplay.from_estimator(
    search,
    robustness="share proved",
    surviving="share surviving",
    group_by="training",
    join_by="property__epsilon",
)
arguments.output.mkdir(parents=True, exist_ok=True)
display.figure_.savefig(arguments.output / "tradeoff.png", dpi=110)

# %%
# How the winner fares as the ball grows, against the plainly trained network.

plain = RobustClassifier(hidden_layer_sizes=(100,), max_epochs=epochs, random_state=0)
plain.fit(X_train, y_train)
security = ConstraintSecurity(property, attack=PGD(40), random_state=0)
display = RobustnessCurveDisplay.from_estimator(
    {"standard training": plain, "winner of the search": search.best_estimator_},
    X_test,
    y_test,
    scorer=security,
    epsilons=[0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2],
)
display.figure_.savefig(arguments.output / "curve.png", dpi=110)

# %%
# Images that the plain network gets right, and the changes that make it fail.

display = AdversarialExamplesDisplay.from_estimator(
    plain, X_test, y_test, scorer=security, image_shape=data.input_shape
)
display.figure_.savefig(arguments.output / "counterexamples.png", dpi=110)
plt.show()

result = security.evaluate(search.best_estimator_, X_test, y_test)
print(f"Winner on {len(y_test)} test samples: accuracy ", end="")
print(f"{search.best_estimator_.score(X_test, y_test):.3f}, security {result.score:.3f}, ", end="")
print(f"95% interval [{result.interval.low:.3f}, {result.interval.high:.3f}]")
print(f"Pictures: {arguments.output.resolve()}")
