"""Limits of Exact: of time, of work, and of memory."""

import time

import numpy as np
import pytest
import torch

from skrobust.attacks import UniformSampling
from skrobust.properties import ClassificationRobustness, StandardRobustness
from skrobust.verification import Exact, Reason
from skrobust.verification._base import Stopwatch
from tests.verification._perceptron import perceptron
from tests.verification._tensors import decided

CR, SR = ClassificationRobustness, StandardRobustness


def hard(hidden=80, factor=4):
    """Return a network, a point, and a property that is likely true, but hard to prove."""
    net, x = perceptron(1, (30, hidden, hidden, 3), scale=2.0), torch.full((1, 30), 0.5)
    samples = SR(0.2, 1.0).ball(x).sample(2000, torch.Generator().manual_seed(0))[0]
    return net, x, SR(0.2, factor * (net(samples) - net(x)).abs().max().item())


@pytest.mark.parametrize(("milp_units", "limit"), [(0, 0.0), (0, 0.5), (10_000, 1.5)])
def test_the_time_limit_is_kept_and_said(milp_units, limit):
    net, x, property = hard()
    labels = net(x).argmax(dim=1)
    verifier = Exact(UniformSampling(1), milp_units=milp_units)
    state = verifier.encode(net, property, 30)
    # The processor's seconds: on a busy machine those of the clock are other programs', too.
    start = time.process_time()
    found = verifier.decide(state, x, labels, timeout=limit)
    assert time.process_time() - start < limit + 1.5
    assert found.verdicts[0] == "unknown"
    assert found.reasons[0] == Reason.TIME_OUT
    assert -np.inf < found.lower[0] < 0


@pytest.mark.parametrize("limit", [0.5, 3.0])
def test_the_time_limit_is_kept_on_deep_networks(monkeypatch, limit):
    # In the processor's seconds, so that a busy machine is no matter.
    monkeypatch.setattr("skrobust.verification._base.time.perf_counter", time.process_time)
    net = perceptron(0, (784, *[256] * 6, 10), scale=1.4)
    x = torch.rand(1, 784, generator=torch.Generator().manual_seed(0))
    labels = net(x).argmax(dim=1)
    verifier = Exact()
    encoding = verifier.encode(net, CR(0.03), 784)
    verifier.search(encoding, x, labels, timeout=0.1)  # what is made once
    start = time.process_time()
    found = verifier.search(encoding, x, labels, timeout=limit)
    assert time.process_time() - start < limit + 0.5
    assert found.reasons[0] in (Reason.TIME_OUT, Reason.COUNTEREXAMPLE)


@pytest.mark.parametrize("milp_units", [0, 10_000])
def test_the_limit_on_work_is_kept_and_said(monkeypatch, milp_units):
    monkeypatch.setattr("skrobust.verification._exact._FIRST_DOMAINS", 20)
    (net, x, property), watches = hard(30, 2), []

    class Watch(Stopwatch):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            watches.append(self)

    monkeypatch.setattr("skrobust.verification._exact.Stopwatch", Watch)
    lowers = set()
    for _ in range(2):
        verifier = Exact(UniformSampling(1), milp_units=milp_units, max_domains=50)
        found = verifier.search(verifier.encode(net, property, 30), x)
        assert found.reasons[0] == Reason.WORK_LIMIT
        # The solver looks at its limit between nodes.
        assert 50 <= watches[-1].n_domains <= (50 if milp_units == 0 else 60)
        lowers.add(found.lower[0])
    assert len(lowers) == 1 and -np.inf < lowers.pop() < 0


def test_little_memory_changes_no_verdict():
    net = perceptron(4, sizes=(3, 12, 12, 3))
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(2))
    labels = net(x).argmax(dim=1)
    verdicts = [
        decided(
            Exact(UniformSampling(1), milp_units=0, split_inputs=0, **kw), net, CR(0.15), x, labels
        ).verdicts
        for kw in ({}, {"memory_limit": 2**20}, {"batch_size": 1})
    ]
    assert verdicts[0].tolist() == verdicts[1].tolist() == verdicts[2].tolist()
    assert "unknown" not in verdicts[0]
