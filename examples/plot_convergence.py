"""
Convergence: what a tolerance promises, and what it costs
=========================================================

Fifty estimates of global robustness at each of several tolerances: all but a few must fall
within the tolerance of the truth. The sequential rule keeps the same promise as Hoeffding's
inequality with fewer samples.
"""

# %%
# A task whose truth is known: uniform numbers, and a classifier that changes its mind at one
# half. The inputs farther than epsilon from there are robust.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from skrobust.attacks import FGSM
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import GlobalRobustness
from skrobust.statistics import sample_size, sequential_rule

random = np.random.default_rng(0)
X = random.random((20_000, 1))
model = LogisticRegression(C=1e4).fit(X[:2000], X[:2000, 0] > 0.5)
boundary = float(-model.intercept_[0] / model.coef_[0, 0])
property = ClassificationRobustness(epsilon=0.05, reference="prediction")
truth = float((np.abs(X[:, 0] - boundary) > 0.05).mean())

# %%
# Fifty estimates at each tolerance, each from its own draw.

tolerances = [0.2, 0.15, 0.1, 0.07, 0.05]
bounds = ("hoeffding", "sequential")
estimates = {
    (bound, tolerance): [
        GlobalRobustness(
            property, tolerance=tolerance, bound=bound, local=FGSM(), random_state=seed
        ).evaluate(model, X)
        for seed in range(50)
    ]
    for bound in bounds
    for tolerance in tolerances
}

# %%
# The estimates, and the band that the promise is about.

figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
for ax, bound in zip(axes, bounds, strict=True):
    for place, tolerance in enumerate(tolerances):
        scores = [result.score for result in estimates[bound, tolerance]]
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
        "within it": np.mean([abs(r.score - truth) <= tolerance for r in results]),
        "samples": np.mean([r.n_used for r in results]),
        "at most": sample_size(tolerance)
        if bound == "hoeffding"
        else sequential_rule(tolerance).n_max,
    }
    for (bound, tolerance), results in estimates.items()
]
print(f"Truth: {truth:.4f}")
print(pd.DataFrame(rows).to_string(index=False))
