"""
Proved against attacked robustness
==================================

An attack bounds from above what share of samples is robust, and a proof from below. Adversarial
training raises the upper end, certified training the lower one, at a price in accuracy. What is to
be had of both is a front, from which a rule chooses.

Run as a script, it takes ``--output``, a folder for the picture.
"""

# %%
# Regimes of each kind, for the same small network, and a network that is 1-Lipschitz by
# construction.

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.model_selection import GridSearchCV

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.datasets import load_digits
from skrobust.displays import TradeOffDisplay
from skrobust.model_selection import LargestSubjectTo, pareto_front
from skrobust.networks import LinfDistanceNetwork
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSatisfaction
from skrobust.training import (
    AdversarialTraining,
    CertifiedTraining,
    LinfDistanceTraining,
    StandardTraining,
)
from skrobust.verification import Bounds, Cascade

parser = argparse.ArgumentParser(description="Search, print the front, draw a picture.")
parser.add_argument("--output", type=Path, default=None, help="folder for the picture")
arguments = parser.parse_args()

X, y = load_digits(return_X_y=True)
X, y = X[:600], y[:600]
property = ClassificationRobustness(epsilon=0.1)
model = RobustClassifier(property=property, max_epochs=12, batch_size=32, lr=0.01, random_state=0)
attack = PGD(3)
# Rates stay as they are: of few steps, none are to spare.
mixed = CertifiedTraining("mtl-ibp", alpha=0.1, attack=attack, ramp_epochs=4, decay="none")
grid = [
    {"training": [StandardTraining()]},
    {"training": [AdversarialTraining(attack)]},
    {
        "training": [CertifiedTraining(ramp_epochs=4, decay="none")],
        "training__clean_weight": [0.5, 0.0],
    },
    {"training": [mixed]},
    {
        "module": [LinfDistanceNetwork(64, 10, hidden_layer_sizes=64, center=0.3, spread=0.37)],
        "training": [LinfDistanceTraining()],
        "max_epochs": [40],
        "lr": [0.03],
    },
]

# %%
# The search has accuracy beside both ends. The verifier is a cheap one: an attack, and bounds for
# what it does not break. `~skrobust.verification.Exact` after them would prove more, and take
# longer.

satisfaction = ConstraintSatisfaction(property, Cascade([PGD(20), Bounds()]), random_state=0)


def scoring(estimator, X, y):
    shares = satisfaction.metrics(estimator, X, y)
    return {
        "accuracy": estimator.score(X, y),
        "share surviving": shares["surviving_share"],
        "share proved": shares["verified_share"],
    }


rule = LargestSubjectTo("share proved", within_standard_errors={"accuracy": 1})
search = GridSearchCV(model, grid, scoring=scoring, refit=rule, cv=2).fit(X, y)
results = search.cv_results_


def name_of(params):
    training = params["training"]
    name = type(training).__name__
    if isinstance(training, CertifiedTraining):
        name += f", {training.method}"
    if "training__clean_weight" in params:
        name += f", clean_weight={params['training__clean_weight']}"
    return name


for i, params in enumerate(results["params"]):
    shares = [results[f"mean_test_{name}"][i] for name in ("accuracy", "share surviving")]
    proved = results["mean_test_share proved"][i]
    print(f"{name_of(params):42s} {shares[0]:.3f}  {proved:.3f} proved, {shares[1]:.3f} surviving")

# %%
# The front, and what the rule takes from it.

front = pareto_front(search, ["accuracy", "share proved"])
print(front)
print(f"Hypervolume {front.hypervolume():.3f}")
print(f"Chosen: {name_of(search.best_params_)}")

display = TradeOffDisplay(
    results["mean_test_accuracy"],
    results["mean_test_share proved"],
    surviving=results["mean_test_share surviving"],
    groups=[name_of(params) for params in results["params"]],
    robustness_name="share proved",
    surviving_name="share surviving",
).plot()
if arguments.output is not None:
    display.figure_.savefig(arguments.output / "proved_and_attacked.png", dpi=80)
plt.show()
