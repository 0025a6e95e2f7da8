"""
Credit: whole numbers, categories, fairness and a monotone feature
==================================================================

A table of loans, made by a fixed seed. Its valid rows are no box: years are whole, one of three
kinds of work holds, and nobody owes more than ten times the income. A counterexample that breaks
one of these is none. Two further questions are asked of the same classifiers: whether the group
that a person is of changes the decision, and whether a higher income ever counts against one.
"""

# %%
# The data: the last column is protected, and takes part in the labels.

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from skrobust import RobustClassifier
from skrobust.properties import (
    ClassificationRobustness,
    Domain,
    IndividualFairness,
    Monotonicity,
)
from skrobust.scorers import ConstraintAccuracy, ConstraintSatisfaction, ConstraintSecurity
from skrobust.training import CertifiedTraining

rng = np.random.default_rng(0)
n = 600
work = rng.integers(0, 3, n)
X = pd.DataFrame(
    {
        "years": rng.integers(0, 11, n),
        "clerk": (work == 0).astype(int),
        "trade": (work == 1).astype(int),
        "other": (work == 2).astype(int),
        "income": rng.uniform(0.1, 1.0, n).round(3),
        "debts": np.zeros(n),
        "group": rng.integers(0, 2, n),
    }
)
X["debts"] = (X["income"] * rng.uniform(0, 10, n)).round(3)
worth = 2 * X["income"] - 0.2 * X["debts"] + 0.08 * X["years"] + 0.2 * X["trade"]
y = (worth + 0.25 * X["group"] + rng.normal(0, 0.1, n) > 0.9).astype(int)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=80, random_state=0)

# %%
# The valid rows, by the names of the columns. Columns of integers take whole numbers.

ends = {"years": (0, 10), "income": (0.1, 1.0), "debts": (0.0, 10.0)}
low, high = zip(*(ends.get(name, (0, 1)) for name in X.columns), strict=True)
not_too_deep = [-10.0 if name == "income" else float(name == "debts") for name in X.columns]
domain = Domain(
    low,
    high,
    integers=["years", "group"],
    one_hot=[["clerk", "trade", "other"]],
    constraints=([not_too_deep], [0.0]),
    feature_names=list(X.columns),
)
print(domain)

# %%
# Three properties, and two networks of the same size: one trained as usual, one on bounds of
# what fairness asks for. `epsilon` is one radius for each column; an epsilon of 1 lets a
# category, or a whole number, change.

small = np.array([1, 0, 0, 0, 0.02, 0.1, 0])
properties = {
    "robust": ClassificationRobustness(small, bounds=domain, reference="prediction"),
    "fair": IndividualFairness(["group"], epsilon=0.0, bounds=domain),
    "monotone in income": Monotonicity("income", bounds=domain),
}
settings = {"hidden_layer_sizes": (8,), "max_epochs": 30, "lr": 0.02, "random_state": 0}
usual = RobustClassifier(**settings).fit(X_train, y_train)
fair = RobustClassifier(
    property=properties["fair"], training=CertifiedTraining(ramp_epochs=10), **settings
).fit(X_train, y_train)
rows = {}
for name, model in {"usual": usual, "trained to be fair": fair}.items():
    rows[name] = {"accuracy": model.score(X_test, y_test)}
    for asked, property in properties.items():
        scorer = ConstraintSatisfaction(property, random_state=0)
        rows[name][asked] = scorer(model, X_test[:30], y_test[:30])
print(pd.DataFrame(rows).T.round(3).to_string())

# %%
# A pair of rows that differ in the group alone, and are decided differently: a frame with the
# columns and types of `X`, in which years are whole and the work is one of three.

result = ConstraintSatisfaction(properties["fair"]).evaluate(usual, X_test, y_test)
pairs = result.counterexamples_frame(X_test)
print(pd.concat([X_test.loc[pairs.index], pairs], keys=["row", "other"]).iloc[[0, len(pairs)]])

# %%
# Sampling and attacks speak of the same rows: each whole number and each category is as likely
# as any other, and rows that break the constraint are drawn anew.

robust = properties["robust"]
for scorer in (ConstraintAccuracy(robust, 20, random_state=0), ConstraintSecurity(robust)):
    print(type(scorer).__name__, scorer(usual, X_test[:30], y_test[:30]))

# %%
# Trees are asked the same, exactly. Of monotonicity they are asked by their probabilities: their
# outputs are steps along the feature, and one point of each step says all.

forest = RandomForestClassifier(10, max_depth=5, random_state=0).fit(X_train, y_train)
rising = Monotonicity("income", bounds=domain, output="probabilities")
for name, property in {"fair": properties["fair"], "monotone in income": rising}.items():
    score = ConstraintSatisfaction(property)(forest, X_test[:30], y_test[:30])
    print(f"forest, {name}: {score:.3f}")
