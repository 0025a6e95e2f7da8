"""
Convergence: what a tolerance promises, and what it costs
=========================================================

Fifty estimates of global robustness at each of several tolerances: all but a few must fall
within the tolerance of the truth. Local robustness is decided exactly, by a complete verifier.
The sequential rule keeps the same promise as Hoeffding's inequality with fewer samples.
"""

# %%
# A small convolutional network. With ``fetch_mnist`` in the place of ``load_digits``, and
# ``input_shape=(1, 28, 28)``, the same is asked of MNIST.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import nn

from skrobust import RobustClassifier
from skrobust.datasets import load_digits
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSatisfaction, GlobalRobustness
from skrobust.statistics import sample_size, sequential_rule
from skrobust.verification import Cascade

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train = X[:1000], X[1000:], y[:1000]
module = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10))
model = RobustClassifier(module, input_shape=(1, 8, 8), max_epochs=30, random_state=0)
model.fit(X_train, y_train)
property = ClassificationRobustness(epsilon=0.05, reference="prediction")

# %%
# Every test image is decided once. Their distribution is what the samples are drawn from, so that
# the share that is robust is known.

decided = ConstraintSatisfaction(property, Cascade(), random_state=0).evaluate(model, X_test)
print(pd.Series(decided.verdicts).value_counts().to_dict())
robust = decided.verdicts == "verified"
truth = robust.mean()

# %%
# One estimate, by the scorer: it draws images, and stops when its interval is narrow enough.

scorer = GlobalRobustness(
    property, local=Cascade(), bound="sequential", tolerance=0.1, random_state=0
)
result = scorer.evaluate(model, X_test)
print(f"truth {truth:.3f}, estimate {result} by {result.n_used} samples ({result.side})")

# %%
# Fifty estimates at each tolerance, each from independent draws of its own.

tolerances = [0.2, 0.15, 0.1, 0.07, 0.05]
random = np.random.default_rng(0)


def estimate(bound, tolerance):
    """Return an estimate, and by how many samples."""
    values = random.choice(robust, sample_size(tolerance))
    if bound == "sequential":
        values = values[: sequential_rule(tolerance).first_stop(values)]
    return values.mean(), len(values)


bounds = ("hoeffding", "sequential")
estimates = {
    (bound, tolerance): np.array([estimate(bound, tolerance) for _ in range(50)])
    for bound in bounds
    for tolerance in tolerances
}

# %%
# The estimates, the band that the promise is about, and on the second axis the samples.

figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
for ax, bound in zip(axes, bounds, strict=True):
    samples = ax.twinx()
    means = [estimates[bound, tolerance][:, 1].mean() for tolerance in tolerances]
    samples.plot(means, "s--", color="tab:green", markersize=4)
    samples.set(ylim=(0, 1.05 * sample_size(tolerances[-1])), ylabel="samples")
    for place, tolerance in enumerate(tolerances):
        scores = estimates[bound, tolerance][:, 0]
        spread = random.uniform(-0.2, 0.2, len(scores))
        ax.plot(place + spread, scores, ".", color="tab:blue", alpha=0.5)
        ax.plot([place] * 2, [truth - tolerance, truth + tolerance], "_-k", linewidth=1)
    ax.axhline(truth, color="tab:red", linewidth=1)
    ax.set_xticks(range(len(tolerances)), tolerances)
    ax.set(title=bound, xlabel="tolerance")
axes[0].set_ylabel("estimated global robustness")
plt.show()

# %%
# What was promised, and what it took.

rows = [
    {
        "bound": bound,
        "tolerance": tolerance,
        "within it": np.mean(np.abs(pairs[:, 0] - truth) <= tolerance),
        "samples": pairs[:, 1].mean(),
        "at most": sample_size(tolerance)
        if bound == "hoeffding"
        else sequential_rule(tolerance).n_max,
    }
    for (bound, tolerance), pairs in estimates.items()
]
print(pd.DataFrame(rows).to_string(index=False))
