"""Standard and Lipschitz robustness: margins by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.properties._cases import CR, LOG3, LR, SR, margin


def test_sr_margin():
    # Changes of +0.5 and -1.5 against delta = 1.
    changes = {"reference_logits": [1.0, 2.0]}
    assert margin(SR(delta=1.0), [1.5, 0.5], **changes) == -0.5
    assert margin(SR(delta=2.0), [1.5, 0.5], **changes) == 0.5
    assert SR(delta=1.5).holds([[1.5, 0.5]], reference_logits=[[1.0, 2.0]]).item() is True


def test_sr_of_probabilities():
    # Probabilities 3/4 and 1/4 against 1/2 and 1/2.
    property = SR(delta=0.3, output="probabilities")
    found = margin(property, [LOG3, 0.0], reference_logits=[7.0, 7.0])
    assert found == pytest.approx(0.05)


def test_lr_margin():
    changes = {"reference_logits": [1.0, 2.0]}
    assert margin(LR(lipschitz=2.0), [1.5, 0.5], distance=0.5, **changes) == -0.5
    assert margin(LR(lipschitz=4.0), [1.5, 0.5], distance=0.5, **changes) == 0.5
    # At the reference point itself the rows hold with equality.
    assert margin(LR(), [1.0, 2.0], **changes) == 0.0
    assert LR().holds([[1.0, 2.0]]).item() is True


def test_lr_of_probabilities():
    property = LR(lipschitz=1.0, output="probabilities")
    found = margin(property, [LOG3, 0.0], reference_logits=[0.0, 0.0], distance=0.5)
    assert found == pytest.approx(0.25)


outputs = arrays(np.float64, (2, 3), elements=st.floats(-100, 100))


@given(outputs=outputs, epsilon=st.floats(0.001, 2), share=st.floats(0, 1), L=st.floats(0.01, 50))
def test_lr_implies_sr_with_epsilon_times_lipschitz(outputs, epsilon, share, L):
    # Casadio et al., section 4.1, at every point of the ball.
    logits, reference = outputs[:1], outputs[1:]
    given = {"reference_logits": reference, "distance": [share * epsilon]}
    lipschitz, standard = LR(epsilon, L), SR(epsilon, delta=epsilon * L)
    slack = 1e-12 * (1 + np.abs(outputs).max() + epsilon * L)
    assert standard.margin(logits, **given) >= lipschitz.margin(logits, **given) - slack
    if lipschitz.margin(logits, **given) >= slack:
        assert standard.holds(logits, **given).all()


def test_sr_implies_no_lr():
    # Nor does it for any L: the change may be near the reference.
    given = {"reference_logits": [[0.0, 0.0]], "distance": [1e-6]}
    assert SR(0.1, delta=1.0).holds([[0.5, 0.0]], **given).all()
    assert not LR(0.1, lipschitz=1e5).holds([[0.5, 0.0]], **given).any()


@pytest.mark.parametrize(
    ("before", "after", "outputs_stay", "label_stays"),
    [
        (0.85, 0.83, True, True),
        (0.85, 0.45, False, False),
        (0.51, 0.91, False, True),
        (0.51, 0.49, True, False),
    ],
)
def test_sr_and_cr_do_not_imply_each_other(before, after, outputs_stay, label_stays):
    # Figure 4 of Casadio et al.: the probability of the true class at the input, and at a point.
    reference, logits = ([np.log([share, 1 - share])] for share in (before, after))
    property = SR(delta=0.1, output="probabilities")
    assert property.holds(logits, reference_logits=reference).item() is outputs_stay
    assert CR().holds(logits, reference_logits=reference, labels=[0]).item() is label_stays
