"""Tests of what verifiers share: results, confirmation, points decided without a verifier."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import nn

from skrobust.attacks import PGD, Target
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import Network
from skrobust.properties import ClassificationRobustness, LipschitzRobustness
from skrobust.verification import Bounds, Cascade, Exact, Reason
from skrobust.verification._base import Stopwatch, at_reference
from tests.verification._tensors import decided


def line(replay=None):
    """z = (x, 1 - x): class 0 wins above 1 / 2."""
    layer = nn.Linear(1, 2)
    layer.weight = nn.Parameter(torch.tensor([[1.0], [-1.0]]), requires_grad=False)
    layer.bias = nn.Parameter(torch.tensor([0.0, 1.0]), requires_grad=False)
    return Network(layer, np.arange(2), 1, replay)


def target(epsilon=0.2, x=(0.6, 0.65, 0.9), replay=None, **options):
    property = ClassificationRobustness(epsilon, **options)
    x = torch.tensor(x)[:, None]
    return Target(line(replay), property, x, torch.zeros(len(x), dtype=torch.long))


def test_at_reference_decides_what_needs_no_verifier():
    found = at_reference(target(epsilon=0.1, x=(0.3, 0.7))).result()
    assert found.verdicts.tolist() == ["falsified", "unknown"]
    found = at_reference(target(epsilon=0.0, x=(0.3, 0.7))).result()
    assert found.verdicts.tolist() == ["falsified", "verified"]
    # The domain alone can fix a point, too.
    found = at_reference(target(epsilon=0.1, x=(0.7,), bounds=(np.float32(0.7).item(),) * 2))
    assert found.verdicts.tolist() == ["verified"]


@pytest.mark.parametrize("verifier", [Bounds("ibp", n_steps=3), Exact(batch_size=7)])
def test_verifiers_are_parameters_and_nothing_else(verifier):
    assert clone(verifier).get_params() == verifier.get_params()


@pytest.mark.parametrize("verifier", [Bounds(), Exact()])
def test_labels_are_asked_for_where_they_are_needed(verifier):
    x = torch.tensor([[0.7]])
    with pytest.raises(ValueError, match="but expected the true labels"):
        decided(verifier, line(), ClassificationRobustness(0.1), x)
    own = ClassificationRobustness(0.1, reference="prediction")
    assert decided(verifier, line(), own, x).verdicts.tolist() == ["verified"]
    assert decided(verifier, line(), LipschitzRobustness(0.1, 2.0), x).verdicts[0] == "verified"


def test_stopwatch():
    watch = Stopwatch(100.0)
    assert 0 <= watch.elapsed < 50 < watch.left <= 100
    assert watch.part(3.0).left <= 3
    assert watch.part(1e6).left <= 100
    assert Stopwatch().left == np.inf
    assert Stopwatch(0.0).left == 0


def test_work_is_counted_in_all_watches_that_it_is_part_of():
    watch = Stopwatch(100.0, max_domains=10)
    first = watch.part(max_domains=4)
    first.count(4)
    assert first.left == 0 and first.reason is Reason.WORK_LIMIT
    assert watch.domains_left == 6 and watch.left > 99
    second = watch.part(seconds=1.0, max_domains=50)
    assert second.domains_left == 6 and second.left <= 1
    second.count(9)
    assert watch.left == second.left == 0
    assert watch.reason is Reason.WORK_LIMIT
    assert Stopwatch(0.0).reason is Reason.TIME_OUT
    assert Stopwatch().domains_left == np.inf


# ---- the one door: an estimator and arrays ----


@pytest.fixture(scope="module")
def model():
    return LogisticRegression(C=1e4).fit([[0.4], [0.6]], ["no", "yes"])


X, Y = np.array([[0.1], [0.45], [0.9]]), np.array(["no", "no", "yes"])


@pytest.mark.parametrize("verifier", [Bounds(), Exact(), Cascade()])
def test_the_door_takes_arrays(model, verifier):
    property = ClassificationRobustness(0.1)
    result = verifier.verify(model, X, Y, property=property, random_state=0)
    unknown = "unknown" if isinstance(verifier, Bounds) else "falsified"
    assert result.verdicts.tolist() == ["verified", unknown, "verified"]
    assert result.decided_by[0] == ("exact" if isinstance(verifier, Exact) else "bounds")
    as_list = verifier.verify(model, X.tolist(), Y.tolist(), property=property)
    assert as_list.verdicts.tolist() == result.verdicts.tolist()
    own = ClassificationRobustness(0.1, reference="prediction")
    assert verifier.verify(model, X, property=own).verdicts.tolist() == result.verdicts.tolist()
    # Labels that nobody needs may be unknown to the model.
    verifier.verify(model, X, ["other"] * 3, property=own)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": None}, ValueError, "Got y=None, but expected the true labels: the property has"),
        ({"y": Y[:2]}, ValueError, "Got y of length 2, but expected 3"),
        ({"y": ["maybe"] * 3}, ValueError, "labels .'maybe'., but expected"),
        ({"X": X + 1}, ValueError, "3 of 3 rows of X lie outside"),
        ({"X": np.ones((3, 2))}, ValueError, "Got X with 2 features, but expected 1"),
        ({"X": np.full((3, 1), np.nan)}, ValueError, "NaN or infinity in 3 rows"),
        ({"X": X[0]}, ValueError, "Got X of shape"),
        ({"property": 0.1}, TypeError, "Got property=0.1"),
        ({"timeout": 0}, ValueError, "Got timeout=0"),
        ({"estimator": SVC().fit(X, Y)}, UnsupportedModelError, "Got a SVC"),
    ],
)
def test_the_door_refuses_by_name(model, change, error, message):
    question = {"estimator": model, "X": X, "y": Y, "property": ClassificationRobustness(0.1)}
    with pytest.raises(error, match=message):
        Cascade().verify(**question | change)


def test_random_states_repeat_attacks(model):
    property = ClassificationRobustness(0.1)
    one, two = (
        Cascade([PGD(1)]).verify(model, X, Y, property=property, random_state=3) for _ in range(2)
    )
    np.testing.assert_array_equal(one.counterexamples, two.counterexamples)
