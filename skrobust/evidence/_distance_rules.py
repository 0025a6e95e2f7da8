"""What the checker of evidence knows of L-infinity distances; it needs NumPy alone.

A unit is the largest abs(z_i - w_i) over the entries of its input. Over a box each of these is
largest at an end and least at the point nearest to w_i, independently of the others: so intervals
are exact but for one rounding. Lines are level. A unit whose input moves by at most r at each
entry moves by at most r itself, so that intervals over a ball of radius r around a point are at
most as wide as the network is Lipschitz, and slopes are at most as large as those of the inputs.
"""

from types import SimpleNamespace as Space

import numpy as np

if __package__:
    from skrobust.evidence._rules import TINY, numbers
else:  # run as a file
    from _rules import TINY, numbers

_AT_ONCE = 2**21  # numbers in the largest array of a pass


class _Level:
    """Units between constants, which say all that is known of them."""

    n_free = 0  # a proof chooses nothing

    def lines(self, low, high):
        bottom, top, _ = self.image(low, high)
        return Space(bottom=bottom, top=top)

    def wanted(self, low, high):
        return np.zeros(low.shape, dtype=bool)

    def pull(self, rows, lines, alpha, lift):
        (here, k), (ends, i) = rows, lift(np.stack([lines.bottom, lines.top]))
        terms = np.where(here > 0, here, 0) * ends[0] + np.where(here < 0, here, 0) * ends[1]
        part = np.zeros((len(here), self.n_inputs), dtype=here.dtype)
        return [(part, k)], (terms.sum(axis=1), k + i)


class Distance(_Level):
    """The L-infinity distance of the input from each row of weights."""

    def __init__(self, arrays, sizes, lift):
        self.weight, self.n_inputs = numbers(arrays, "weight", (None, sizes[0])), sizes[0]
        self.size = len(self.weight)

    def image(self, low, high):
        least, most = np.zeros((2, len(low), self.size))
        step = max(1, _AT_ONCE // max(1, low.size))
        for start in range(0, self.size, step):
            at = slice(start, start + step)
            below, above = low[:, None] - self.weight[at], high[:, None] - self.weight[at]
            most[:, at] = np.maximum(above, -below).max(axis=2, initial=0.0)
            least[:, at] = np.maximum(below, -above).max(axis=2, initial=0.0)
        # Of each difference the exact one lies between the floats beside it.
        least = np.where(least > 0, np.nextafter(least, -np.inf), 0.0)
        most = np.nextafter(most, np.inf)
        return least, most, 2 * most + TINY

    def slopes(self):
        """Return the node that bounds slopes of these units."""
        return DistanceSlopes(self.size, self.n_inputs, self.inputs)


class DistanceSlopes(_Level):
    """Numbers that are at most as large as the largest entry of the input."""

    def __init__(self, size, n_inputs, inputs):
        self.size, self.n_inputs, self.inputs = size, n_inputs, inputs

    def image(self, low, high):
        most = np.maximum(-low, high).max(axis=1, keepdims=True, initial=0.0)
        most = np.repeat(np.maximum(most, 0.0), self.size, axis=1)
        return -most, most, 2 * most + TINY
