"""No planted counterexample is claimed verified, and the benchmark would catch such a claim."""

import importlib.util
import sys
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from skrobust import TorchClassifier
from skrobust.verification import Bounds, Cascade, Exact

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
KINDS = [*product(("dense", "convolutional"), ("ReLU", "tanh", "sigmoid"))]
VERIFIERS = [Bounds("ibp"), Bounds("alpha-crown"), Exact(max_domains=5)]


@pytest.fixture(scope="module")
def soundness():
    """The script of the benchmark; what it imports has the names _monotone and _planted."""
    names = ("_monotone", "_planted", "soundness")
    for name in names:
        specification = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
    yield module
    for name in names:
        del sys.modules[name]


def test_decimals_by_hand(soundness):
    layers = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    layers.double().requires_grad_(False)
    for layer, weight, bias in ((layers[0], [[1.0], [-1.0]], [2.0**-55, 5.0]),
                                (layers[2], [[3.0, 2.0]], [0.0])):  # fmt: skip
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    (value,) = sys.modules["_monotone"].exact_logits(layers, torch.tensor([1.0]).double())
    # 3 (1 + 2^-55) + 2 * 4, which float64 rounds to 11.
    assert Fraction(value) == 11 + Fraction(3, 2**55)
    for unit, kind in ((torch.nn.Tanh(), torch.tanh), (torch.nn.Sigmoid(), torch.sigmoid)):
        (value,) = sys.modules["_monotone"].exact_logits([unit], torch.tensor([0.3]).double())
        assert float(value) == pytest.approx(kind(torch.tensor(0.3).double()).item(), rel=1e-15)


def test_decimals_agree_with_the_network(soundness):
    for form, activation in KINDS:
        planted, _, _ = soundness.hard_questions("few ulps, float64", form, activation, 1)
        module = planted.estimator.module
        point = torch.as_tensor(planted.points[0])
        exact = sys.modules["_monotone"].exact_logits(module, point)
        assert np.allclose(module(point[None])[0], [float(z) for z in exact], rtol=1e-13)
        assert exact[0] < max(exact[1:])


def test_nothing_broken_by_few_ulps_is_claimed_verified(soundness):
    n_proved = 0
    # Dense and convolutional in turn.
    chosen = [(name, *kind) for k, name in enumerate(soundness.HARD) for kind in KINDS[k % 2 :: 2]]
    for name, form, activation in chosen:
        planted, plain, _ = soundness.hard_questions(name, form, activation, 0)
        assert soundness.is_counterexample(planted)[0]
        for verifier in VERIFIERS:
            assert soundness.verdicts(verifier, planted)[0] != "verified", (name, form, activation)
        # Not because nothing is ever proved.
        n_proved += soundness.verdicts(VERIFIERS[0], plain)[0] == "verified"
    assert n_proved == len(chosen)


def test_a_verifier_without_care_for_rounding_is_caught(soundness):
    """Outputs in float32 at the true worst corner: what bounds without slack would be."""

    def claims(question):
        module = torch.nn.Sequential(*question.estimator.module).float()
        logits = module(torch.as_tensor(question.points).float())[0]
        return bool(logits[0] > logits[1:].max())

    questions = [
        soundness.hard_questions("few ulps, float64", *kind, seed)[0]
        for kind in KINDS
        for seed in range(3)
    ]
    assert sum(map(claims, questions)) >= 3


def test_an_unsound_verifier_is_counted(soundness, capsys):
    class Credulous(Bounds):
        def decide(self, encoding, x, labels=None, **options):
            found = super().decide(encoding, x, labels, **options)
            found.verdicts[found.verdicts == "unknown"] = "verified"
            return found

    planted, plain, _ = soundness.hard_questions("few ulps, float32", "dense", "tanh", 0)
    assert soundness.table("here", [planted, plain], {"credulous": Credulous()}) == 1
    assert "| here | credulous | 1 | 0 | 0 | 1 | 1 | 1 | 0 | 0 |" in capsys.readouterr().out


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "activation", ["sigmoid", pytest.param("ReLU", marks=slow), pytest.param("tanh", marks=slow)]
)
def test_nothing_planted_by_training_is_claimed_verified(soundness, activation):
    planted = sys.modules["_planted"].train("dense", activation, n=2, width=8, rounds=10)
    n = len(planted.points)
    assert (np.abs(planted.points - planted.x[:n]) <= planted.epsilon).all()
    points = np.full_like(planted.x, np.nan)
    points[:n] = planted.points
    property = soundness.ClassificationRobustness(planted.epsilon, bounds=None)
    estimator = TorchClassifier(planted.module, 3)
    question = soundness.Question(estimator, property, planted.x, planted.labels, points)
    assert soundness.is_counterexample(question).tolist() == [True, False]
    for verifier in (*VERIFIERS, Cascade(timeout=None).set_params(exact__max_domains=5)):
        for each in (question, soundness.scaled(question), *soundness.disjunctions(question)):
            said = soundness.verdicts(verifier, each)
            assert (said[each.is_planted] != "verified").all()
