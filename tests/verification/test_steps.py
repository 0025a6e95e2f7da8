"""Steps as data: who asks for what, with how much time."""

import numpy as np
import pytest
import torch

from skrobust.verification import Step, VerificationBuilder
from skrobust.verification._steps import decide_in_steps


def proves(index, seconds=1.0):
    """A `decide` that proves the points with these values, and keeps what it was asked."""

    def decide(encoding, x, labels=None, *, timeout=None, generator=None):
        asked.append((x[:, 0].tolist(), None if labels is None else labels.tolist(), timeout))
        verdicts = VerificationBuilder(x)
        verdicts.prove(np.flatnonzero(np.isin(x[:, 0], index)))
        verdicts.seconds[:] = seconds
        return verdicts.result()

    asked = []
    decide.asked = asked
    return decide


def test_each_step_is_asked_for_what_is_open():
    x, labels = torch.arange(4.0)[:, None], torch.tensor([5, 6, 7, 8])
    first, second = proves([1.0]), proves([0.0, 3.0])
    steps = [Step("a", None, first, "attack"), Step("b", None, second)]
    result = decide_in_steps(steps, x, labels)
    assert first.asked == [([0.0, 1.0, 2.0, 3.0], [5, 6, 7, 8], None)]
    assert second.asked == [([0.0, 2.0, 3.0], [5, 7, 8], None)]
    assert result.decided_by.tolist() == ["b", "a", "", "b"]
    assert result.seconds.tolist() == [2.0, 1.0, 2.0, 2.0]


def test_no_step_is_asked_for_nothing():
    x, last = torch.zeros(2, 1), proves([])
    decide_in_steps([Step("a", None, proves([0.0])), Step("b", None, last)], x)
    assert last.asked == []
    assert len(decide_in_steps([Step("a", None, last)], x[:0])) == 0


@pytest.mark.parametrize(
    ("own", "given", "limits"),
    [(None, None, [None, None]), (10.0, None, [10.0, 9.0]), (None, 3.0, [3.0, 1.98]),
     (10.0, 0.5, [0.5, 0.0]), (2.0, 7.0, [2.0, 1.0])],
)  # fmt: skip
def test_the_time_of_a_point_is_for_all_steps(own, given, limits):
    decide = proves([])
    steps = [Step(name, None, decide, timeout=own) for name in "ab"]
    decide_in_steps(steps, torch.zeros(3, 1), timeout=given)
    assert [limit for _, _, limit in decide.asked] == limits


def test_who_has_spent_less_time_has_more_left():
    x, last = torch.arange(4.0)[:, None], proves([])

    def unequal(encoding, x, labels=None, *, timeout=None, generator=None):
        verdicts = VerificationBuilder(x)
        verdicts.seconds[:] = [9.0, 0.0, 30.0, 0.001]
        return verdicts.result()

    steps = [Step("a", None, unequal), Step("b", None, last)]
    result = decide_in_steps(steps, x, timeout=10.0)
    assert last.asked == [
        ([1.0], None, 10.0), ([3.0], None, 9.9), ([0.0], None, 1.0), ([2.0], None, 0.0),
    ]  # fmt: skip
    assert result.seconds.tolist() == [10.0, 1.0, 31.0, 1.001]
