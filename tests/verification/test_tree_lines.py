"""Monotonicity of trees: as by trying every step of the feature, and refusals."""

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.properties import Domain, Monotonicity
from skrobust.scorers import ConstraintSatisfaction
from skrobust.verification import Cascade, TreeVerifier

RNG = np.random.default_rng(0)
X = np.c_[RNG.uniform(size=(150, 2)), RNG.integers(0, 6, 150)].astype(float)
Y = (X[:, 0] + 0.1 * X[:, 2] + 0.3 * RNG.uniform(size=150) > 0.9).astype(int)
MODELS = [
    DecisionTreeClassifier(max_depth=4, random_state=0),
    RandomForestClassifier(5, random_state=0),
    GradientBoostingClassifier(n_estimators=5, random_state=0),
]
DOMAIN = Domain([0, 0, 0], [1, 1, 5], integers=[2])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("feature", [0, 2])
def test_verdicts_are_those_of_every_step(model, feature):
    model.fit(X, Y)
    property = Monotonicity(feature, bounds=DOMAIN, output="probabilities")
    result = TreeVerifier().verify(model, X[:15], property=property)
    values = np.arange(6.0) if feature == 2 else np.linspace(0, 1, 2001)
    for i, x in enumerate(X[:15]):
        line = np.repeat(x[None], len(values), axis=0)
        line[:, feature] = values
        line = line[values >= x[feature]]
        falls = model.predict_proba(line)[:, 1] < model.predict_proba([x])[0, 1] - 1e-4
        assert (result.verdicts[i] == "falsified") == falls.any()
        if falls.any():
            pair = result.counterexamples[i]
            assert pair[feature] > x[feature] and DOMAIN.holds([pair]).all()
            assert model.predict_proba([pair])[0, 1] < model.predict_proba([x])[0, 1] - 1e-4
    assert (
        ConstraintSatisfaction(property)(model, X[:15]) == (result.verdicts == "verified").mean()
    )
    assert (Cascade().verify(model, X[:15], property=property).verdicts == result.verdicts).all()


def test_a_model_that_was_made_monotone_is_proved():
    model = RandomForestClassifier(5, monotonic_cst=[1, 0, 0], random_state=0).fit(X, Y)
    property = Monotonicity(0, output="probabilities", bounds=DOMAIN)
    assert (TreeVerifier().verify(model, X[:15], property=property).verdicts == "verified").all()


def test_what_is_not_along_one_feature_is_refused():
    tree = MODELS[0].fit(X, Y)
    property = Monotonicity(0, epsilon=0.1, output="probabilities", bounds=DOMAIN)
    with pytest.raises(UnsupportedPropertyError, match="Use epsilon=0"):
        TreeVerifier().verify(tree, X, property=property)
    with pytest.raises(UnsupportedPropertyError, match="output='probabilities'"):
        TreeVerifier().verify(tree, X, property=Monotonicity(0, bounds=DOMAIN))
