"""The ensemble keeps the closest point, names the winner, and composes as scikit-learn does."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from skrobust.attacks import (
    FGSM,
    LBFGS,
    PGD,
    Attack,
    Ensemble,
    EnsembleOutcome,
    LinearBoundary,
    Outcome,
    Target,
    UniformSampling,
)
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)


class _Jump(Attack):
    """Moves by a fixed amount in one feature, and counts the samples that it is given."""

    def __init__(self, feature=0, amount=0.5):
        self.feature = feature
        self.amount = amount

    def check(self):
        return self

    def attempt(self, target, *, generator=None, stop_when_broken=True):
        self.seen_ = len(target)
        x = target.x.clone()
        x[:, self.feature] += self.amount
        x = target.ball.project(x)
        return target.assess(x, target.network(x))


def _either(x):
    """Class 1 where x1 > 0.5 or x2 > 0.7, else class 0."""
    score = torch.maximum(x[:, :1] - 0.5, x[:, 1:2] - 0.7)
    return torch.cat([torch.zeros_like(score), score], dim=1)


_POINTS = torch.tensor([[0.4, 0.4], [0.1, 0.6], [0.0, 0.0], [0.9, 0.0]])
_LABELS = torch.zeros(4, dtype=torch.int64)


def _network(seed=0, n_features=6, n_classes=4):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(n_features, 20), torch.nn.ReLU(), torch.nn.Linear(20, n_classes)
    ).requires_grad_(False)


def test_winners_by_hand():
    attack = Ensemble([("first", _Jump(0)), ("second", _Jump(1))])
    found = attack.closest(Target(_either, ClassificationRobustness(0.45), _POINTS, _LABELS))
    assert isinstance(found, EnsembleOutcome)
    # Distances 0.1 and 0.3; 0.4 and 0.1; out of reach; broken at the reference.
    assert found.winners.tolist() == [0, 1, -1, -1]
    assert found.broken.tolist() == [True, True, False, True]
    expected = torch.tensor([[0.5, 0.4], [0.1, 0.7]])
    torch.testing.assert_close(found.points[:2], expected)
    assert torch.equal(found.points[3], _POINTS[3])


def test_first_of_equals_wins():
    attack = Ensemble([("first", _Jump(0)), ("again", _Jump(0))])
    found = attack.closest(Target(_either, ClassificationRobustness(0.45), _POINTS, _LABELS))
    assert found.winners.tolist() == [0, 0, -1, -1]


def test_run_asks_each_member_only_for_what_is_left():
    first, second = _Jump(0), _Jump(1)
    found = Ensemble([("a", first), ("b", second)]).search(
        Target(_either, ClassificationRobustness(0.2), _POINTS, _LABELS)
    )
    # Broken at the start: one; by the first member: one; by the second: one more.
    assert (first.seen_, second.seen_) == (3, 2)
    assert found.broken.tolist() == [True, True, False, True]


def test_run_without_stopping_asks_all_for_all_and_keeps_the_lowest_margin():
    first, second = _Jump(0, 0.1), _Jump(1, 0.1)
    found = Ensemble([("a", first), ("b", second)]).search(
        Target(_either, ClassificationRobustness(0.2), _POINTS, _LABELS), stop_when_broken=False
    )
    assert (first.seen_, second.seen_) == (4, 4)
    expected = [[0.5, 0.4], [0.1, 0.7], [0.1, 0.0], [1.0, 0.0]]
    torch.testing.assert_close(found.points, torch.tensor(expected))


def test_restarts_of_members_are_taken():
    class Counted(_Jump):
        n_restarts = 3
        calls = 0

        def attempt(self, target, *, generator=None, stop_when_broken=True):
            Counted.calls += 1
            return super().attempt(target, generator=generator, stop_when_broken=stop_when_broken)

    Ensemble([("a", Counted(0, 0.0))]).search(
        Target(_either, ClassificationRobustness(0.2), _POINTS, _LABELS)
    )
    assert Counted.calls == 3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_never_farther_than_any_member(norm):
    network, x = _network(), torch.rand((50, 6), generator=torch.Generator().manual_seed(0))
    epsilon = [0.0, 0.5, 0.5, 0.5, 0.2, 0.9]
    property = ClassificationRobustness(epsilon, norm=norm, reference="prediction")
    ball = property.ball(x)
    members = [
        ("fgsm", FGSM()),
        ("pgd", PGD(10, random_start=False)),
        ("linear", LinearBoundary()),
    ]
    found = Ensemble(members).closest(Target(network, property, x))
    assert ((found.points >= ball.lower) & (found.points <= ball.upper)).all()
    target = Target(network, property, x)
    assert torch.equal(target.assess(found.points, network(found.points)).broken, found.broken)

    def radius(outcome):
        return torch.where(outcome.broken, ball.distance(outcome.points), torch.inf)

    alone = torch.stack(
        [radius(attack.closest(Target(network, property, x))) for _, attack in members]
    )
    torch.testing.assert_close(radius(found), alone.min(dim=0).values, rtol=1e-4, atol=1e-6)
    finite = found.broken & target.movable
    assert finite.any()
    chosen = alone.gather(0, found.winners.clamp(min=0)[None])[0]
    torch.testing.assert_close(chosen[finite], radius(found)[finite], rtol=1e-4, atol=1e-6)
    assert (found.winners[~found.broken] == -1).all()


@pytest.mark.parametrize(
    "property",
    [
        StandardRobustness(0.3, delta=0.05),
        LipschitzRobustness(0.3, lipschitz=0.2),
        StrongClassificationRobustness(0.3, eta=0.3, reference="prediction"),
        ClassificationRobustness(0.3, reference="prediction") & StandardRobustness(0.3, delta=0.1),
    ],
    ids=["SR", "LR", "SCR", "CR & SR"],
)
def test_every_property_goes_through(property):
    network, x = _network(), torch.rand((30, 6), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    found = Ensemble().closest(Target(network, property, x), generator=generator)
    assert found.broken.any()
    target = Target(network, property, x)
    seen = target.assess(found.points, network(found.points))
    assert torch.equal(seen.broken, found.broken)
    run = Ensemble().search(Target(network, property, x), generator=generator)
    assert torch.equal(run.broken, found.broken)


def test_two_classes_of_an_estimator():
    X, y = np.array([[0.2], [0.4], [0.6], [0.8]]), np.array(["no", "no", "yes", "yes"])
    model = LogisticRegression(C=1e3).fit(X, y)
    attack = Ensemble()
    found = attack.perturb(model, X, y, property=ClassificationRobustness(0.25), random_state=0)
    assert model.predict(found).tolist() == ["no", "yes", "no", "yes"]


def test_ensembles_nest():
    inner = Ensemble([("linear", LinearBoundary())])
    found = Ensemble([("fgsm", FGSM()), ("inner", inner)]).closest(
        Target(_either, ClassificationRobustness(0.45), _POINTS, _LABELS)
    )
    assert isinstance(found, EnsembleOutcome)
    assert set(found.winners.tolist()) <= {-1, 0, 1}
    assert found.broken.tolist() == [True, True, False, True]


def test_parameters_reach_the_members():
    attack = Ensemble([("pgd", PGD(5)), ("fgsm", FGSM())])
    assert attack.get_params()["pgd__n_steps"] == 5
    attack.set_params(pgd__n_steps=7, fgsm__objective="cross-entropy")
    assert attack.attacks[0][1].n_steps == 7
    assert attack.attacks[1][1].objective == "cross-entropy"
    attack.set_params(fgsm=LBFGS(3), fgsm__n_weights=4)
    assert [name for name, _ in attack.attacks] == ["pgd", "fgsm"]
    assert attack.attacks[1][1].n_weights == 4
    with pytest.raises(ValueError, match="Invalid parameter 'cw'"):
        attack.set_params(cw__n_steps=1)


def test_replacing_a_member_leaves_the_given_list_alone():
    given = [("pgd", PGD(5))]
    Ensemble(given).set_params(pgd=FGSM())
    assert isinstance(given[0][1], PGD)


def test_defaults_can_be_set_as_well():
    attack = Ensemble()
    assert attack.get_params(deep=False) == {"attacks": None}
    assert [name for name, _ in attack.members] == ["linear", "fmn"]
    attack.set_params(fmn__n_steps=3)
    assert dict(attack.members)["fmn"].n_steps == 3
    assert Ensemble().attacks is None
    attack.set_params(attacks=None)
    assert dict(attack.members)["fmn"].n_steps == 30


def test_clone_and_pickle():
    attack = Ensemble([("pgd", PGD(5)), ("linear", LinearBoundary(2))])
    for copied in (clone(attack), pickle.loads(pickle.dumps(attack))):
        assert copied.attacks[0][1] is not attack.attacks[0][1]
        assert copied.get_params()["pgd__n_steps"] == 5
        assert copied.get_params()["linear__n_steps"] == 2
        assert repr(copied) == repr(attack)


@pytest.mark.parametrize(
    "attacks",
    [
        [("a", FGSM()), ("a", PGD())],
        [("a__b", FGSM())],
        [("attacks", FGSM())],
        [(1, FGSM())],
    ],
)
def test_refuses_names(attacks):
    with pytest.raises(ValueError, match=r"Got attacks with the names .*, but expected different"):
        Ensemble(attacks).check()


@pytest.mark.parametrize("attacks", [[], 3, PGD()])
def test_refuses_what_is_no_list_of_attacks(attacks):
    with pytest.raises(TypeError, match=r"Got attacks=.*, but expected None, or a list of parts"):
        Ensemble(attacks).check()


def test_members_without_names_are_called_by_their_class():
    ensemble = Ensemble([FGSM(), PGD(3), PGD(4)])
    assert [name for name, _ in ensemble.members] == ["fgsm", "pgd_1", "pgd_2"]
    assert ensemble.set_params(pgd_2__n_steps=5).attacks[2].n_steps == 5


def test_refuses_members():
    with pytest.raises(TypeError, match=r"Got pgd='PGD', but expected an Attack"):
        Ensemble([("pgd", "PGD")]).check()
    with pytest.raises(ValueError, match="Got n_steps=0"):
        Ensemble([("pgd", PGD(0))]).check()


def test_outcome_is_an_outcome():
    found = Ensemble().closest(Target(_either, ClassificationRobustness(0.1), _POINTS, _LABELS))
    assert isinstance(found, Outcome)
    assert found.winners.dtype == torch.int64


def test_an_ensemble_of_samplings_needs_no_gradient():
    assert not Ensemble([UniformSampling(3)]).needs_gradient
    assert Ensemble([UniformSampling(3), FGSM()]).needs_gradient
    X, y = np.array([[0.2], [0.4], [0.6], [0.8]]), [0, 0, 1, 1]
    model = GaussianNB().fit(X, y)
    points = Ensemble([UniformSampling(50)]).perturb(
        model, X, y, property=ClassificationRobustness(0.3), random_state=0
    )
    assert (model.predict(points) != y).any()


@pytest.mark.parametrize("stop_when_broken", [True, False])
def test_a_member_with_a_margin_takes_no_violation_away(stop_when_broken):
    network, x = _network(), torch.rand((12, 6), generator=torch.Generator().manual_seed(0))
    labels = network(x).argmax(dim=1)
    target = Target(network, ClassificationRobustness(0.5), x, labels)
    linear, demanding = LinearBoundary(), LBFGS(3, margin=2.0)
    alone = linear.search(target, stop_when_broken=stop_when_broken)
    both = Ensemble([("linear", linear), ("demanding", demanding)])
    found = both.search(target, stop_when_broken=stop_when_broken)
    assert alone.broken.any()
    assert (found.broken | ~alone.broken).all()


def test_an_error_at_the_reference_is_no_finding_of_a_full_search():
    x, wrong = torch.tensor([[0.6, 0.0]]), torch.tensor([0])
    target = Target(_either, ClassificationRobustness(0.2), x, wrong)
    seen = _Jump(amount=-0.2).search(target, stop_when_broken=False)
    torch.testing.assert_close(seen.points, torch.tensor([[0.4, 0.0]]))
    torch.testing.assert_close(seen.margins, torch.tensor([0.1]))
    assert not seen.broken
