"""Targets and outcomes."""

import pytest
import torch

from skrobust.attacks import (
    FGSM,
    LBFGS,
    PGD,
    Ensemble,
    LinearBoundary,
    Outcome,
    Target,
    UniformSampling,
    attack_and_confirm,
)
from skrobust.exceptions import UnsupportedModelError
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
)
from tests.attacks._nets import Counting, rows, small_net


def test_target_classes_for_the_cross_entropy():
    net, x = small_net(), rows(5)
    wrong = (net(x).argmax(dim=1) + 1) % 3
    assert torch.equal(Target(net, ClassificationRobustness(), x, wrong).classes, wrong)
    by_prediction = ClassificationRobustness(reference="prediction")
    assert torch.equal(Target(net, by_prediction, x, wrong).classes, net(x).argmax(dim=1))
    assert torch.equal(Target(net, StandardRobustness(), x).classes, net(x).argmax(dim=1))


def test_target_gradients_against_differences():
    net, x = small_net().double(), rows(6).double()
    labels = net(x).argmax(dim=1)
    target = Target(net, ClassificationRobustness(), x, labels)
    for objective in ("margin", "cross-entropy"):
        gradient, logits, value = target.gradient(x, objective)
        torch.testing.assert_close(logits, net(x))
        for j in range(4):
            move = torch.zeros(4, dtype=torch.float64)
            move[j] = 1e-6
            after = target.gradient(x + move, objective)[2]
            torch.testing.assert_close(
                (after - value) / 1e-6, gradient[:, j], rtol=1e-3, atol=1e-5
            )


def test_outcomes_merge_to_the_worse():
    ours = Outcome(torch.zeros(3, 1), torch.tensor([1.0, 2.0, -1.0]), torch.tensor([0, 0, 1]) > 0)
    theirs = Outcome(torch.ones(2, 1), torch.tensor([-1.0, 0.5]), torch.tensor([1, 0]) > 0)
    merged = ours.merge(torch.tensor([1, 2]), theirs)
    assert merged.points[:, 0].tolist() == [0.0, 1.0, 0.0]
    assert merged.margins.tolist() == [1.0, -1.0, -1.0]
    assert merged.broken.tolist() == [False, True, True]
    assert ours.broken.tolist() == [False, False, True]


def test_outcomes_keep_a_violation_whatever_the_margins():
    ours = Outcome(
        torch.zeros(3, 1), torch.tensor([-0.5, -5.0, -1.0]), torch.tensor([1, 0, 1]) > 0
    )
    theirs = Outcome(
        torch.ones(3, 1), torch.tensor([-3.0, -1.0, -2.0]), torch.tensor([0, 1, 1]) > 0
    )
    merged = ours.merge(torch.arange(3), theirs)
    assert merged.broken.all()
    assert merged.margins.tolist() == [-0.5, -1.0, -2.0]


# ---- targets: what is checked, what is computed once --------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"network": 3}, TypeError, "Got network=3, but expected a callable from rows"),
        ({"network": torch.nn.Linear}, TypeError, "but expected a callable from rows"),
        ({"property": 0.1}, TypeError, "Got property=0.1, but expected a RobustnessProperty"),
        (
            {"property": ClassificationRobustness(-1.0)},
            ValueError,
            "Got epsilon=-1.0, but expected a non-negative",
        ),
        ({"x": [[0.5]]}, TypeError, "Got x='list', but expected a tensor of floats of shape"),
        ({"x": None}, TypeError, "Got x='NoneType', but expected a tensor of floats"),
        ({"x": torch.zeros(3, 4, dtype=torch.int64)}, TypeError, r"Got x=\(3, 4\), but expected"),
        ({"x": torch.zeros(4)}, ValueError, r"Got x=\(4,\), but expected a tensor of floats"),
        ({"x": torch.zeros(3, 0)}, ValueError, r"Got x=\(3, 0\), but expected a tensor"),
        ({"labels": [0, 1, 2]}, TypeError, "Got labels='list', but expected a tensor of class"),
        ({"labels": torch.zeros(3)}, TypeError, r"Got labels=\(3,\), but expected a tensor"),
        (
            {"labels": torch.zeros(2, dtype=torch.int64)},
            ValueError,
            r"Got labels=\(2,\), but expected a tensor of class indices of shape \(3,\)",
        ),
    ],
)
def test_targets_refuse(arguments, error, message):
    given = {"network": small_net(), "property": ClassificationRobustness(), "x": rows(3)}
    with pytest.raises(error, match=message):
        Target(**given | arguments)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_that_are_no_class_are_refused(label):
    target = Target(small_net(), ClassificationRobustness(), rows(2), torch.tensor([0, label]))
    with pytest.raises(ValueError, match=f"Got labels with {label}, but expected .* 0 to 2"):
        _ = target.conclusion


@pytest.mark.parametrize(
    "call", [FGSM().search, FGSM().closest, FGSM().points, Ensemble().closest]
)
def test_attacks_ask_for_a_target(call):
    with pytest.raises(TypeError, match="expected a Target, such as Target"):
        call(small_net())


def test_a_gradient_of_the_rows_is_not_kept():
    x = rows(3).requires_grad_()
    target = Target(small_net(), StandardRobustness(0.1, delta=0.1), x)
    assert not target.x.requires_grad
    assert not FGSM().search(target).points.requires_grad


@pytest.mark.parametrize("objective", ["margin", "cross-entropy"])
@pytest.mark.parametrize(
    "forward",
    [lambda x: torch.as_tensor(x.detach().numpy() * 2), torch.ones_like],
    ids=["numpy", "constant"],
)
def test_a_network_without_a_gradient_is_refused(forward, objective):
    target = Target(forward, ClassificationRobustness(), rows(3), torch.tensor([0, 1, 2]))
    for attack in (FGSM(objective), LBFGS(objective=objective), LinearBoundary()):
        with pytest.raises(UnsupportedModelError, match="no gradient in its inputs"):
            attack.attempt(target)
    assert len(UniformSampling(3).search(target)) == 3


@pytest.mark.parametrize("method", ["search", "closest", "points"])
@pytest.mark.parametrize("attack", [FGSM(), PGD(2), LinearBoundary(), LBFGS(1)], ids=str)
def test_one_class_is_refused_where_classes_are_compared(attack, method):
    target = Target(small_net(1), ClassificationRobustness(), rows(2), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match=r"with 1 output, but expected .* two: Classification"):
        getattr(attack, method)(target)


@pytest.mark.parametrize("attack", [FGSM("cross-entropy"), LBFGS(1)], ids=str)
def test_one_class_is_refused_by_the_cross_entropy(attack):
    target = Target(small_net(1), StandardRobustness(0.1, delta=0.1), rows(2))
    with pytest.raises(ValueError, match=r"with 1 output, but expected .* two: the cross-entropy"):
        attack.search(target)
    assert len(FGSM().search(target)) == 2  # its rows are about the one output


@pytest.mark.parametrize("property", [LipschitzRobustness(0.1), ClassificationRobustness()])
def test_no_samples(property):
    target = Target(small_net(), property, rows(2)[:0], torch.zeros(0, dtype=torch.int64))
    for attack in (FGSM(), PGD(2, n_restarts=2), LinearBoundary(), UniformSampling(3)):
        assert len(attack.search(target)) == len(attack.closest(target)) == 0
        assert attack.points(target).shape == (0, 4)


def test_parts_hand_on_what_is_known():
    net, x = Counting(small_net()), rows(6)
    labels = net.module(x).argmax(dim=1)
    target = Target(net, LipschitzRobustness(0.1, 1.0), x, labels)
    _ = target.conclusion, target.ball, target.classes, target.replay(x)
    net.rows.clear()
    index = torch.tensor([4, 1])
    part = target[index]
    assert len(part) == 2
    assert torch.equal(part.x, x[index]) and torch.equal(part.labels, labels[index])
    assert torch.equal(part.reference_logits, target.reference_logits[index])
    _ = part.conclusion, part.ball, part.classes
    assert net.rows == []
    seen = part.replay(part.x)  # nor are the references replayed again
    assert net.rows == [2]
    assert torch.equal(seen.margins, torch.zeros(2))


def test_the_property_is_checked_once():
    class Checked(ClassificationRobustness):
        n = 0

        def check(self, X=None):
            Checked.n += 1
            return super().check(X)

    target = Target(small_net(), Checked(0.1), rows(6), torch.zeros(6, dtype=torch.int64))
    PGD(3, n_restarts=2).search(target)
    attack_and_confirm(FGSM(), target)
    FGSM().closest(target)
    assert Checked.n == 1


def test_movable():
    x = torch.tensor([[0.5, 1.0], [1.0, 1.0]])
    property = ClassificationRobustness([0.1, 0.0], bounds=(1.0, 1.0))
    wide = ClassificationRobustness([0.1, 0.0])
    assert Target(small_net(), wide, x).movable.tolist() == [True, True]
    assert Target(small_net(), property, x[1:]).movable.tolist() == [False]


def test_outcomes_are_cut_and_put():
    outcome = Outcome(
        torch.zeros(3, 1), torch.tensor([1.0, 2.0, -1.0]), torch.tensor([0, 0, 1]) > 0
    )
    part = outcome[torch.tensor([2, 0])]
    assert len(part) == 2 and part.margins.tolist() == [-1.0, 1.0]
    back = outcome.put(torch.tensor([0, 1]), part)
    assert back.margins.tolist() == [-1.0, 1.0, -1.0] and back.broken.tolist() == [
        True,
        False,
        True,
    ]
    assert outcome.margins.tolist() == [1.0, 2.0, -1.0]
