"""Spans by whole numbers hold what 50 digits say, and are narrow."""

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skrobust.evidence import _enclosures
from skrobust.evidence._enclosures import BITS, Span

SCALE, CUBIC, BETA, RATE = 0.8, 0.0447, 1.5, 0.7
FUNCTIONS = {
    "tanh": (_enclosures.tanh, mp.tanh),
    "sigmoid": (_enclosures.sigmoid, lambda z: 1 / (1 + mp.exp(-z))),
    "erf": (_enclosures.error_function, mp.erf),
    "silu": (_enclosures.silu, lambda z: z / (1 + mp.exp(-z))),
    "gelu": (_enclosures.gelu, lambda z: z * mp.ncdf(z)),
    "gelu by tanh": (
        lambda z: _enclosures.gelu_by_tanh(z, SCALE, CUBIC),
        lambda z: z / 2 * (1 + mp.tanh(mp.mpf(SCALE) * (z + mp.mpf(CUBIC) * z**3))),
    ),
    "softplus": (
        lambda z: _enclosures.softplus(z, BETA),
        lambda z: mp.log1p(mp.exp(mp.mpf(BETA) * z)) / mp.mpf(BETA),
    ),
    "elu": (
        lambda z: _enclosures.elu(z, 1.3, 1.1, RATE),
        lambda z: mp.mpf(1.1) * (z if z > 0 else mp.mpf(1.3) * mp.expm1(mp.mpf(RATE) * z)),
    ),
}
TINY = [0.0, 5e-324, -5e-324, 1e-300, -1e-300, 3e-39, -3e-39]
PLACES = [*TINY, *np.linspace(-13, 13, 41), 6.6, -6.7, 9.4, -9.5, 40.0, -40.0, 700.0, -700.0]


def limits(span):
    return mp.mpf(span.low) / mp.mpf(2) ** BITS, mp.mpf(span.high) / mp.mpf(2) ** BITS


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_slopes_lie_within(name):
    enclose, function = FUNCTIONS[name]
    with mp.workdps(50):
        rounding = mp.mpf(10) ** -47
        for place in PLACES:
            z = mp.mpf(float(place))
            value, slope = enclose(Span.of(float(place)))
            low, high = limits(value)
            exact = function(z)
            assert low - rounding * abs(exact) <= exact <= high + rounding * abs(exact)
            assert high - low <= mp.mpf(10) ** -19 * (1 + abs(z))
            if abs(z) > 1e-9:  # beside a kink
                rise = mp.diff(function, z, h=mp.mpf(10) ** -15)
                low, high = limits(slope)
                assert low - mp.mpf(10) ** -14 <= rise <= high + mp.mpf(10) ** -14
                assert high - low <= mp.mpf(10) ** -19


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_arithmetic_is_outwards(a, b, divisor):
    spans = [Span.of(number) for number in (a, b, divisor)]
    with mp.workdps(60):
        a, b, divisor = map(mp.mpf, (a, b, divisor))
        cases = [
            (spans[0] + spans[1], a + b),
            (spans[0] - spans[1], a - b),
            (spans[0] * spans[1], a * b),
            (spans[0] / spans[2], a / divisor),
        ]
        for span, exact in cases:
            low, high = limits(span)
            rounding = mp.mpf(10) ** -55 * abs(exact)
            assert low - rounding <= exact <= high + rounding
            assert high - low < mp.mpf(2) ** (24 - BITS)
            below, above = span.floats()
            assert below <= low
            assert high <= above
        low, high = limits(spans[2].root())
        assert low <= mp.sqrt(divisor) <= high


def test_exp_and_log_of_spans_hold_both_ends():
    t = Span(Span.of(0.5).low, Span.of(2.0).high)
    low, high = limits(_enclosures.exp_minus(t))
    assert low < mp.exp(-2)
    assert high > mp.exp(mp.mpf(-0.5))
    assert limits(_enclosures.log_1_plus(Span(0, Span.of(1.0).high)))[0] <= 0
    low, high = limits(_enclosures.log_1_plus(Span.of(1.0)))
    assert low < mp.log(2) < high < low + 1e-35
    assert limits(_enclosures.exp_minus(Span.of(1e90)))[0] == 0
