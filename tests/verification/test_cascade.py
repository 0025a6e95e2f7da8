"""The cascade: who is asked for what, and what happens where two verifiers contradict."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from skrobust.attacks import FGSM, PGD, UniformSampling
from skrobust.exceptions import (
    UnsupportedModelError,
    UnsupportedPropertyError,
)
from skrobust.networks import Network, as_model, as_network
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import (
    Bounds,
    Cascade,
    Exact,
    Step,
    TreeVerifier,
    VerificationBuilder,
)
from tests.verification._tensors import Recorder, decided

CR = ClassificationRobustness


class Careful(Recorder):
    """Attacks and bounds before it searches, and keeps what it did."""

    def steps(self, encoding):
        return [
            Step(self.name, encoding, partial(self.note, kind), kind, is_optional=kind != "search")
            for kind in ("attack", "bounds", "search")
        ]

    def note(self, kind, encoding, x, labels=None, **options):
        self.asked.append(kind)
        return VerificationBuilder(x).result()


@pytest.fixture(scope="module")
def line():
    """A network that says 1 above 0.5, and five points."""
    model = LogisticRegression(C=1e4).fit([[0.4], [0.6]], [0, 1])
    network = as_network(model)
    x = network.rows(np.array([[0.1], [0.45], [0.3], [0.55], [0.9]]))
    return network, x, network.encode(np.array([0, 0, 0, 1, 1]))


def test_each_stage_is_asked_for_what_is_left(line):
    network, x, labels = line
    first, last = Recorder(), Recorder()
    # The ball of 0.45 and 0.55 crosses 0.5; bounds prove the others.
    found = decided(Cascade([first, Bounds(), last]), network, CR(0.1), x, labels)
    assert first.asked == [(5, 60.0)]
    # What the stages before it have spent is no longer there.
    assert last.asked == [(2, pytest.approx(60.0, abs=2.0))]
    assert last.asked[0][1] < 60.0
    assert found.verdicts.tolist() == ["verified", "unknown", "verified", "unknown", "verified"]
    assert found.decided_by.tolist() == ["bounds", "", "bounds", "", "bounds"]
    assert (found.seconds > 0).all()


def test_a_complete_stage_does_not_repeat_the_cheap_ones(line):
    network, x, labels = line
    last = Recorder()
    found = decided(Cascade([FGSM(), Bounds(), last]), network, CR(0.1), x, labels)
    assert last.asked == []  # nothing was left
    assert found.decided_by.tolist() == ["bounds", "fgsm", "bounds", "fgsm", "bounds"]
    # No attack breaks the hat, and intervals do not prove it.
    for cheap, asked in (
        (Recorder(), ["bounds", "search"]),
        (Bounds("ibp"), ["search"]),
        (Exact(milp_units=0), []),  # decides
    ):
        last = Careful()
        decided(Cascade([FGSM(), cheap, last]), *_hat())
        assert last.asked == asked
    # The last step of a stage is what the stage is for.
    twice = [Bounds("ibp"), Bounds()]
    steps = Cascade(twice).steps(Cascade(twice).encode(line[0], CR(0.1)))
    assert [step.name for step in steps] == ["bounds_1", "bounds_2"]


def _hat():
    """relu(x) - relu(x) / 2, a property, and one point with its label."""
    module = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        module[0].weight.fill_(1.0)
        module[0].bias.fill_(0.0)
        module[2].weight.copy_(torch.tensor([[1.0, -0.5], [0.0, 0.0]]))
    return Network(module, [0, 1], 1), CR(0.3), torch.tensor([[0.5]]), torch.tensor([0])


LIMITS = [(60.0, None, 60.0), (5.0, 7.0, 5.0), (None, 3.0, 3.0)]


@pytest.mark.parametrize("own, given, used", LIMITS)
def test_the_smaller_time_limit_holds(line, own, given, used):
    network, x, labels = line
    stage = Recorder()
    decided(Cascade([stage], timeout=own), network, CR(0.1), x, labels, timeout=given)
    assert stage.asked == [(5, used)]


PROPERTIES = [
    CR(0.1),
    CR(0.5, norm="l2"),
    StandardRobustness(0.05, delta=2.0),
    LipschitzRobustness(0.05, lipschitz=36.0),
    StrongClassificationRobustness(0.05, eta=0.6),
]


@pytest.mark.parametrize("property", PROPERTIES, ids=repr)
def test_the_default_says_what_exact_says(digits, digits_model, property):
    _, X, _, y = digits
    network = as_network(digits_model)
    x, labels = network.rows(X[:40]), network.encode(y[:40])
    exact = decided(Exact(), network, property, x, labels, timeout=10)
    found = decided(Cascade(timeout=10), network, property, x, labels)
    assert len(set(found.verdicts)) > 1
    assert (found.verdicts == "unknown").mean() <= 0.1
    both = (exact.verdicts != "unknown") & (found.verdicts != "unknown")
    np.testing.assert_array_equal(exact.verdicts[both], found.verdicts[both])
    # Leaves of a concave row are programs.
    assert set(found.decided_by) <= {"pgd", "bounds", "exact", "highs", ""}


# ---- trees ----


@pytest.mark.parametrize(
    "model", [DecisionTreeClassifier(random_state=0), RandomForestClassifier(5, random_state=0)]
)
def test_the_default_for_trees(digits, model):
    X, X_test, y, y_test = digits
    model.fit(X, y)
    found = Cascade().verify(model, X_test[:20], y_test[:20], property=CR(0.03))
    assert set(found.verdicts) == {"verified", "falsified"}
    assert set(found.decided_by) == {"treeverifier"}
    broken = found.verdicts == "falsified"
    assert (model.predict(found.counterexamples[broken]) != y_test[:20][broken]).all()


@pytest.mark.parametrize("model", [SVC(), KNeighborsClassifier()])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_other_models_are_refused_by_name(digits, model):
    X, _, y, _ = digits
    model.fit(X[:100], y[:100])
    network = as_model(model, CR().needed_outputs, needs_gradient=False)
    with pytest.raises(UnsupportedModelError, match=r"SVC|KNeighbors"):
        Cascade().encode(network, CR(0.1), 64)


# ---- parameters ----


def test_stages_are_reached_by_name():
    cascade = Cascade([PGD(), Bounds(), Bounds("alpha-crown"), Exact()])
    params = cascade.get_params()
    assert params["exact__batch_size"] is None
    assert params["bounds_2__method"] == "alpha-crown"
    assert "exact" not in cascade.get_params(deep=False)
    cascade.set_params(exact__batch_size=7, bounds_1__method="ibp", timeout=1.0)
    assert cascade.stages[3].batch_size == 7
    assert cascade.stages[1].method == "ibp"
    assert cascade.timeout == 1.0


def test_a_stage_can_be_replaced():
    stages = [PGD(), Exact()]
    cascade = Cascade(stages).set_params(exact=TreeVerifier(), exact__method="bounds")
    assert isinstance(cascade.stages[1], TreeVerifier)
    assert cascade.stages[1].method == "bounds"
    assert isinstance(stages[1], Exact)  # the caller's list is not changed
    assert Cascade().set_params(stages=[Exact()], exact__n_steps=9).stages[0].n_steps == 9


def test_clone_copies_stages():
    cascade = Cascade([PGD(7), Exact()], cross_check=Exact(n_steps=9))
    copy = clone(cascade)
    assert copy.stages[0].n_steps == 7 and copy.stages[0] is not cascade.stages[0]
    assert copy.cross_check.n_steps == 9
    assert repr(Cascade()) == "Cascade()"


@pytest.mark.parametrize(
    "params, error, message",
    [
        ({"stages": []}, TypeError, "Got stages=\\[\\], but expected None, or a list"),
        ({"stages": ["pgd"]}, TypeError, "Got stages\\[0\\]='pgd', but expected"),
        ({"stages": Exact()}, TypeError, "Got stages="),
        ({"timeout": 0}, ValueError, "Got timeout=0"),
        ({"cross_check": PGD()}, TypeError, "Got cross_check="),
        ({"cross_check": Bounds("exact")}, ValueError, "Got method='exact'"),
        ({"query_folder": 5}, TypeError, "Got query_folder=5"),
        ({"stages": [Bounds("exact")]}, ValueError, "Got method='exact'"),
    ],
)
def test_bad_input(params, error, message):
    with pytest.raises(error, match=message):
        Cascade(**params).check()


def test_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match="Invalid parameter 'marabou'"):
        Cascade([Exact()]).set_params(marabou=Exact())


def test_default_stages_are_reached_by_name_too():
    cascade = Cascade().set_params(exact__batch_size=7)
    assert [type(stage) for stage in cascade.stages] == [PGD, Bounds, Exact]
    assert cascade.stages[2].batch_size == 7
    assert Cascade().set_params(timeout=3.0).stages is None


def test_names_are_those_before_a_stage_is_replaced():
    cascade = Cascade([Bounds("ibp"), Bounds(), Exact()])
    cascade.set_params(bounds_1=PGD(), bounds_1__n_steps=3, bounds_2__n_steps=4)
    assert cascade.stages[0].n_steps == 3 and cascade.stages[1].n_steps == 4


def test_attacks_that_follow_gradients_are_refused_for_trees(digits):
    X, _, y, _ = digits
    model = DecisionTreeClassifier(random_state=0).fit(X[:100], y[:100])
    with pytest.raises(UnsupportedModelError, match="'pgd' follows gradients"):
        Cascade([PGD(), TreeVerifier()]).verify(model, X[:10], y[:10], property=CR(0.1))
    cascade = Cascade([UniformSampling(50), TreeVerifier()])
    found = cascade.verify(model, X[:10], y[:10], property=CR(0.05))
    alone = TreeVerifier().verify(model, X[:10], y[:10], property=CR(0.05))
    assert found.verdicts.tolist() == alone.verdicts.tolist()


def test_a_tree_behind_a_scaler_is_decided_in_raw_units(digits):
    X, _, y, _ = digits
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0))
    model.fit(X[:100], y[:100])
    found = Cascade().verify(model, X[:5], y[:5], property=CR(0.1))
    assert set(found.verdicts) == {"verified", "falsified"}
    points = found.counterexamples[found.verdicts == "falsified"]
    assert (model.predict(points) != y[:5][found.verdicts == "falsified"]).all()
    assert (np.abs(points - X[:5][found.verdicts == "falsified"]) <= 0.1).all()


def test_a_tree_behind_steps_that_mix_columns_is_refused(digits):
    X, _, y, _ = digits
    model = make_pipeline(PCA(3), DecisionTreeClassifier(random_state=0)).fit(X[:100], y[:100])
    with pytest.raises(UnsupportedModelError, match=r"'pca' of the pipeline mix columns") as error:
        Cascade().verify(model, X[:5], y[:5], property=CR(0.1))
    assert "Verify the last step on the data" in str(error.value)
    # What the message advises works.
    found = Cascade().verify(
        model[-1], model[:-1].transform(X[:5]), y[:5], property=CR(0.1, bounds=None)
    )
    assert "unknown" not in found.verdicts


def test_other_properties_of_trees_are_refused_at_once(digits):
    X, _, y, _ = digits
    model = RandomForestClassifier(3, random_state=0).fit(X[:100], y[:100])
    for output in ("logits", "probabilities"):
        property = StandardRobustness(0.1, delta=0.1, output=output)
        with pytest.raises(
            UnsupportedPropertyError, match="ClassificationRobustness and Monotonicity"
        ):
            Cascade().verify(model, X[:5], y[:5], property=property)


def test_a_step_that_is_not_affine_is_named(digits):
    X, _, y, _ = digits
    model = make_pipeline(PolynomialFeatures(), LogisticRegression()).fit(X[:99, :4], y[:99])
    network = as_model(model, CR().needed_outputs, needs_gradient=False)
    with pytest.raises(UnsupportedModelError, match="'polynomialfeatures'"):
        Cascade().encode(network, CR(0.1), 4)


def test_the_reference_point_counts_before_any_attack(line):
    network, x, labels = line
    wrong = 1 - labels
    found = decided(Cascade([FGSM()]), network, CR(0.0), x, wrong)
    assert (found.verdicts == "falsified").all()
    assert (decided(Cascade([FGSM()]), network, CR(0.0), x, labels).verdicts == "verified").all()


def test_an_attack_that_exact_is_given_is_not_left_out(line):
    cascade = Cascade([PGD(1), Bounds(), Exact(attack=PGD(7))])
    names = [step.name for step in cascade.steps(cascade.encode(line[0], CR(0.1)))]
    assert names == ["pgd", "bounds", "exact", "exact"]
    default = Cascade([PGD(1), Bounds(), Exact()])
    names = [step.name for step in default.steps(default.encode(line[0], CR(0.1)))]
    assert names == ["pgd", "bounds", "exact"]


def test_a_cascade_in_a_cascade_keeps_all_stages(line):
    inner = Cascade([Bounds("alpha-crown"), PGD(2)])
    cascade = Cascade([Bounds("ibp"), inner])
    names = [step.name for step in cascade.steps(cascade.encode(line[0], CR(0.1)))]
    assert names == ["bounds", "bounds", "pgd"]
