"""scikit-learn's own checks, on real training, with no expected failure."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from skrobust import RobustClassifier
from skrobust.properties import ClassificationRobustness
from skrobust.training import AdversarialTraining, ConstraintTraining, DataAugmentation

_PROPERTY = ClassificationRobustness(epsilon=0.01, bounds=None)


@parametrize_with_checks(
    [
        RobustClassifier(),
        RobustClassifier(property=_PROPERTY, training=AdversarialTraining(), max_epochs=20),
        RobustClassifier(property=_PROPERTY, training=ConstraintTraining(), max_epochs=20),
        RobustClassifier(property=_PROPERTY, training=DataAugmentation(), max_epochs=20),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
