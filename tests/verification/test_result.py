"""Results of verifiers, and how they are built in place."""

import numpy as np
import pytest
import torch

from skrobust.verification import Reason, Verdict, Verification, VerificationBuilder


def builder(n=3):
    return VerificationBuilder(torch.zeros(n, 2))


def test_results_are_built_step_by_step():
    points, broken = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([True, False])
    found = builder().falsify([2, 0], points, broken).prove([1], lower=0.5).result()
    assert isinstance(found, Verification)
    assert found.verdicts.tolist() == ["unknown", "verified", "falsified"]
    np.testing.assert_array_equal(found.counterexamples, [[np.nan] * 2, [np.nan] * 2, [1, 2]])
    assert found.reasons.tolist() == [
        Reason.BOUNDS_TOO_LOOSE,
        Reason.PROVED,
        Reason.COUNTEREXAMPLE,
    ]
    assert found.lower.tolist() == [-np.inf, 0.5, -np.inf]
    assert found.undecided_index.tolist() == [0]
    assert found[1:].verdicts.tolist() == ["verified", "falsified"]
    assert len(found) == 3


def test_merge_adds_seconds_and_keeps_the_better_bound():
    found = builder().prove([1])
    found.seconds[:], found.lower[:] = 1.0, [-2.0, 0.0, -3.0]
    other = builder(2).prove([1])
    other.seconds[:], other.lower[:] = 2.0, [-5.0, 0.1]
    merged = found.merge([0, 2], other.result(), "someone").result()
    assert merged.verdicts.tolist() == ["unknown", "verified", "verified"]
    assert merged.seconds.tolist() == [3.0, 1.0, 3.0]
    assert merged.lower.tolist() == [-2.0, 0.0, 0.1]
    assert merged.decided_by.tolist() == ["", "", "someone"]


@pytest.mark.parametrize("index", [slice(1, 2), [1]])
def test_merge_counts_no_second_twice(index):
    # Of a slice the old values are a view: exact searches reported twice their time.
    found, other = builder(), builder(1)
    found.seconds[:], found.lower[:] = 1.0, 0.5
    other.seconds[:], other.lower[:] = 2.0, -1.0
    merged = found.merge(index, other.result()).result()
    assert merged.seconds.tolist() == [1.0, 3.0, 1.0]
    assert merged.lower.tolist() == [0.5, 0.5, 0.5]


def test_a_name_that_is_there_stays():
    signed = builder(1).merge([0], builder(1).prove([0]).result(), "inner").result()
    assert builder(1).merge([0], signed, "outer").decided_by.tolist() == ["inner"]


def test_decided_points_are_not_asked_again():
    with pytest.raises(ValueError, match="expected unknown ones"):
        builder().prove([1]).merge([1], builder(1).result())


def test_nothing_is_copied_on_the_way():
    # One copy of all arrays a point made n points cost n^2: 10 s for 4,000 of 784 features.
    found = builder(50)
    arrays = dict(vars(found))
    for i in range(48):
        found.merge(slice(i, i + 1), builder(1).prove([0]).result(), "one")
    found.falsify([48], torch.ones(1, 2)).prove([49]).disagree(49, np.ones(2), "a", "note")
    assert all(vars(found)[name] is array for name, array in arrays.items())
    result = found.result()
    assert all(getattr(result, name) is array for name, array in arrays.items())
    assert (result.verdicts[:48] == "verified").all()
    assert result.reasons[49] is Reason.DISAGREEMENT


def test_a_builder_has_nothing_left_once_it_gave_its_result():
    found = builder()
    found.result()
    with pytest.raises(AttributeError):
        found.prove([0])


def test_reasons_are_advice():
    assert all(reason.value.endswith((".", ").")) for reason in Reason)
    assert {v.value for v in Verdict} == {"verified", "falsified", "unknown"}
