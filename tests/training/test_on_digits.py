"""Training for a property raises its score on data that were not trained on."""

import pytest

from skrobust import RobustClassifier
from skrobust.attacks import FGSM, PGD
from skrobust.properties import ClassificationRobustness, LipschitzRobustness, StandardRobustness
from skrobust.scorers import ConstraintSecurity
from skrobust.training import AdversarialTraining, ConstraintTraining, DataAugmentation

CR = ClassificationRobustness(0.15)
SR = StandardRobustness(0.15, delta=3.0)


def fitted(digits, **params):
    X, _, y, _ = digits
    params = {"hidden_layer_sizes": 32, "max_epochs": 15, "random_state": 0} | params
    return RobustClassifier(**params).fit(X, y)


@pytest.mark.parametrize(
    ("property", "regime", "gain"),
    [
        (CR, DataAugmentation(sampling="fgsm"), 0.1),
        (CR, AdversarialTraining(FGSM("cross-entropy")), 0.2),
        (CR, AdversarialTraining(PGD(5, objective="cross-entropy"), clean_weight=0.3), 0.2),
        (CR, ConstraintTraining(beta=2.0, attack=PGD(5)), 0.1),
        (SR, ConstraintTraining(beta=1.0, attack=PGD(5)), 0.2),
        (SR, ConstraintTraining(beta=0.5, attack=FGSM(), balance="gradient-norm"), 0.05),
        (LipschitzRobustness(0.15, 30.0), ConstraintTraining(attack=PGD(5), ramp_epochs=2), 0.2),
    ],
    ids=lambda p: type(p).__name__ if not isinstance(p, float) else "",
)
def test_training_for_a_property_pays(digits, digits_model, property, regime, gain):
    _, X, _, y = digits
    model = fitted(digits, property=property, training=regime)
    score = ConstraintSecurity(property, PGD(20), random_state=0)
    assert score(model, X, y) > score(digits_model, X, y) + gain
    assert model.score(X, y) > 0.8
