"""Intervals that hold exp, log, erf and what smooth units make of them, by whole numbers alone.

A `Span` holds all numbers between two multiples of 2^-BITS. Sums, products and quotients are
rounded outwards; of each series the remainder is added, by a bound that its comment proves.
"""

import math
from fractions import Fraction

BITS = 128
_ONE = 1 << BITS
_MORE = 32  # bits of sums within a series


class Span:
    """The numbers from low 2^-BITS to high 2^-BITS."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    @classmethod
    def of(cls, number):
        """Return the smallest span that holds a float or a fraction."""
        scaled = Fraction(number) * _ONE
        return cls(math.floor(scaled), math.ceil(scaled))

    def __neg__(self):
        return Span(-self.high, -self.low)

    def __add__(self, other):
        return Span(self.low + other.low, self.high + other.high)

    def __sub__(self, other):
        return self + -other

    def __mul__(self, other):
        ends = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Span(min(ends) >> BITS, -(-max(ends) >> BITS))

    def __truediv__(self, other):
        """Divide by a span above 0."""
        pairs = [(a << BITS, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return Span(min(a // b for a, b in pairs), max(-(-a // b) for a, b in pairs))

    def root(self):
        return Span(math.isqrt(self.low << BITS), math.isqrt(self.high << BITS) + 1)

    def floats(self):
        """Return floats that are at most, and at least, all numbers of the span."""
        low, high = (Fraction(end, _ONE) for end in (self.low, self.high))
        below, above = float(low), float(high)
        below = below if below <= low else math.nextafter(below, -math.inf)
        return below, above if above >= high else math.nextafter(above, math.inf)


_1, _2, _4, _HALF = (Span.of(number) for number in (1, 2, 4, 0.5))
_DIGITS = 314159265358979323846264338327950288419716939937510582097494
_PI = Span(_DIGITS * _ONE // 10**59, (_DIGITS + 1) * _ONE // 10**59 + 1)
_ROOT_2, _TWO_OVER_ROOT_PI = _2.root(), _2 / _PI.root()


def exp_minus(t):
    """Return exp(-t) for a span of numbers that are not below 0."""
    return Span(_exp_minus(t.high)[0], _exp_minus(max(0, t.low))[1])


def _exp_minus(t):
    if t >= BITS * _ONE:
        return 0, 1  # exp(-t) < 2^-t
    # exp(-u), u = t / 2^k <= 1/2, is squared k times. Each term u^n / n! is rounded down, which
    # takes less than 2 units off it and those before it; the terms fall and alternate, so that
    # what comes after the last one, which is below 3 units, is less than that.
    halvings = max(0, t.bit_length() - BITS + 1)
    bits = BITS + _MORE  # there are at most 9 halvings: no bit of u is lost
    u, term, total, n = (t << _MORE) >> halvings, 1 << bits, 0, 0
    while term:
        total, n = total + (-term if n % 2 else term), n + 1
        term = (term * u >> bits) // n
    low, high = total - 2 * n - 3, total + 2 * n + 3
    for _ in range(halvings):
        low, high = low * low >> bits, -(-high * high >> bits)
    return max(0, low) >> _MORE, -(-high >> _MORE)


def log_1_plus(y):
    """Return log(1 + y) for a span of numbers from 0 to 1.

    It is 2 (w + w^3 / 3 + w^5 / 5 + ...) with w = y / (2 + y), at most 1/3: what comes after a
    term is less than twice the next power.
    """
    w = y / (_2 + y)
    square, low, high = w * w, 0, 0
    power = w
    for n in range(1, 91, 2):
        low, high = low + power.low // n, high - (-power.high // n)
        power = power * square
    return Span(2 * low, 2 * (high + 2 * power.high))


def erf(x):
    """Return erf(x), which is 2 x / sqrt(pi) exp(-w) (1 + 2 w / 3 + (2 w)^2 / 15 + ...), w = x x.

    Term n + 1 is term n times 2 w / (2 n + 3): half of it or less, where that is at most 1/2, so
    that all which come after are less than twice the next one. 1 - erf(x) is at most exp(-w).
    """
    if x.low + x.high < 0:
        return -erf(-x)
    w = x * x
    if w.low > 44 * _ONE:
        return Span((_1 - exp_minus(w)).low, _ONE)
    total, term, n = Span(0, 0), _1, 0
    while (2 * n + 3) * _ONE < 4 * w.high or term.high > 4:
        total, n = total + term, n + 1
        twice = Span(2 * w.low, 2 * w.high) * term
        term = Span(twice.low // (2 * n + 1), -(-twice.high // (2 * n + 1)))
    total = Span(total.low, total.high + 2 * term.high)
    value = _TWO_OVER_ROOT_PI * x * exp_minus(w) * total
    return Span(max(value.low, -_ONE), min(value.high, _ONE))


# Functions of a span z, each with its slope.


def _size(z):
    return Span(max(0, z.low, -z.high), max(-z.low, z.high))


def error_function(z):
    return erf(z), _TWO_OVER_ROOT_PI * exp_minus(z * z)


def tanh(z):
    small = exp_minus(_2 * _size(z))
    value, slope = (_1 - small) / (_1 + small), _4 * small / ((_1 + small) * (_1 + small))
    if z.low < 0 < z.high:  # between 0 and z
        return z, slope
    return -value if z.high <= 0 else value, slope


def sigmoid(z):
    small = exp_minus(_size(z))
    low, high = small / (_1 + small), _1 / (_1 + small)  # of -abs(z) and abs(z)
    value = Span((high if z.low >= 0 else low).low, (low if z.high <= 0 else high).high)
    return value, small / ((_1 + small) * (_1 + small))


def silu(z):
    value, slope = sigmoid(z)
    return z * value, value + z * slope


def gelu(z):
    share = (_1 + erf(z / _ROOT_2)) * _HALF
    density = _TWO_OVER_ROOT_PI / (_2 * _ROOT_2) * exp_minus(z * z * _HALF)
    return z * share, share + z * density


def gelu_by_tanh(z, scale, cubic):
    scale, cubic = Span.of(scale), Span.of(cubic)
    value, slope = tanh(scale * (z + cubic * z * z * z))
    share, steep = (_1 + value) * _HALF, scale * (_1 + Span.of(3) * cubic * z * z)
    return z * share, share + z * _HALF * slope * steep


def softplus(z, beta):
    scaled = Span.of(beta) * z
    value = log_1_plus(exp_minus(_size(scaled))) + Span(max(0, scaled.low), max(0, scaled.high))
    return value / Span.of(beta), sigmoid(scaled)[0]


def elu(z, alpha, scale, rate):
    alpha, scale, rate = map(Span.of, (alpha, scale, rate))
    if z.high > 0:
        return scale * z, scale
    small = exp_minus(-(rate * z))
    return scale * alpha * (small - _1), scale * alpha * rate * small
