"""
Global robustness: a share of the data distribution, with a promise
===================================================================

What share of all inputs, not only of those at hand, is locally robust? A tolerance and a
confidence fixed in advance say how many inputs must be looked at.
"""

# %%
# A network, and inputs that it has not seen.

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skrobust import RobustClassifier
from skrobust.attacks import FGSM, PGD
from skrobust.datasets import load_digits
from skrobust.exceptions import ToleranceWarning
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import GlobalRobustness
from skrobust.training import AdversarialTraining
from skrobust.verification import Bounds, Cascade

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train = X[:1000], X[1000:], y[:1000]
property = ClassificationRobustness(epsilon=0.03, reference="prediction")
model = RobustClassifier(hidden_layer_sizes=(64,), max_epochs=20, random_state=0)
model.fit(X_train, y_train)

# %%
# The same promise, within 0.05 of the truth at confidence 0.95, by several bounds. The
# sequential rule stops early where nearly all inputs are robust, or nearly none; "anytime" is
# for those who look at the results as they come.

rows = {}
for bound in ("hoeffding", "clopper-pearson", "sequential", "anytime"):
    scorer = GlobalRobustness(property, bound=bound, local=FGSM(), random_state=0)
    result = scorer.evaluate(model, X_test)
    rows[bound] = {
        "score": result.score,
        "low": result.interval.low,
        "high": result.interval.high,
        "samples": result.n_used,
        "side": result.side,
    }
print(pd.DataFrame(rows).T.to_string())

# %%
# An attack misses violations, and bounds miss proofs: the one gives the share from above, the
# other from below. A cascade that ends in a complete verifier gives the share itself.

sequential = GlobalRobustness(property, bound="sequential", random_state=0)
for local in (PGD(), Bounds(), Cascade()):
    result = sequential.set_params(local=local).evaluate(model, X_test)
    print(f"{type(local).__name__:8} {result.side:6} {result.score:.3f}  {result.interval}")

# %%
# With too few inputs for the promise, the scorer says which one the data allow.

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", ToleranceWarning)
    result = GlobalRobustness(property, local=FGSM()).evaluate(model, X_test[:200])
print(caught[0].message)
print(f"Tolerance {result.tolerance:.3f}: {result}")

# %%
# How much can the probabilities change? The largest change over the ball, sample by sample, for
# plain and for adversarial training.

robust = RobustClassifier(
    hidden_layer_sizes=(64,),
    max_epochs=20,
    property=ClassificationRobustness(epsilon=0.1),
    training=AdversarialTraining(FGSM("cross-entropy")),
    random_state=0,
).fit(X_train, y_train)
wide = ClassificationRobustness(epsilon=0.08)
quantity = GlobalRobustness(wide, quantitative="linf-probabilities", random_state=0)
figure, ax = plt.subplots(layout="constrained")
for name, each in (("plain training", model), ("adversarial training", robust)):
    result = quantity.evaluate(each, X_test)
    ax.plot(np.sort(result.changes), np.linspace(0, 1, result.n_used), label=name)
    share = np.mean(result.changes <= 0.5)  # the score, with threshold=0.5
    print(f"{name}: 1 - mean change {result.score:.3f}; at most 0.5 for {share:.3f} of all")
ax.set(xlabel="largest change of a probability", ylabel="share of the inputs")
ax.legend()
plt.show()
