r"""Lines above the units of a first layer that are not functions of the unit's input alone.

Over a box, y = max(z, 0) with z = w . x + b lies below a . (x - m) + c for any row a, where m is
the middle of the box, h its half-widths, and c the larger of what z - a . (x - m) and
-a . (x - m) come to over the box. The line between both ends of the interval of z is one of them,
of a = t w; others are lower at the corner where rows are least. These are the concave envelope
of y over the box, which is that of its relaxation with all cuts of Anderson et al. With entries
a_i = s_i w_i and s_i in [0, 1], both are sums:

.. math:: c = \max(z(m) + R - C, C), \quad R = \sum_i \|w_i\| h_i,
          \quad C = \sum_i s_i \|w_i\| h_i.

Here s depends on the sign of w_i, and on the row that is bounded, not on the unit: at a corner of
the box one s is best for all units. So the lines of all units are products of matrices, with few
free numbers, which gradient steps choose with the slopes; each unit also has a free share of this
line, the rest being the one between the ends.

References
----------
Anderson et al., "Strong mixed-integer programming formulations for trained neural networks",
Mathematical Programming 2020. Tjandraatmadja et al., "The convex relaxation barrier, revisited",
NeurIPS 2020.
"""

from dataclasses import dataclass

import torch

from skrobust.bounds._rounding import gamma
from skrobust.graphs import Linear, Relu

__all__ = ["Envelope", "envelope_of"]

_SHARE = 0.3  # to begin with
_ROOM = 8.0  # for the rounding of c, of sums over units, and of their products with m


@dataclass(frozen=True, eq=False)
class Envelope:
    """Lines above the units of one node, which reads an affine function of one box.

    Parameters
    ----------
    node : int
        Position of the ReLU.
    units : int Tensor of shape (k,)
        Entries that are not linear over the box.
    rising, falling : Tensor of shape (k, n_features)
        The positive and the negative part of their weights.
    middle, half : Tensor of shape (n_features,)
        Of the box.
    reach : Tensor of shape (k,)
        z(m) + R.
    error : Tensor of shape (k,)
        Bounds what rounding can cost for each.
    """

    node: int
    units: torch.Tensor
    rising: torch.Tensor
    falling: torch.Tensor
    middle: torch.Tensor
    half: torch.Tensor
    reach: torch.Tensor
    error: torch.Tensor

    @property
    def keys(self):
        """What free numbers are called among those of all nodes: shares, and s by sign."""
        return (self.node, "share"), (self.node, "rising"), (self.node, "falling")

    @property
    def size(self):
        """How many free numbers a row has."""
        return len(self.units) + 2 * len(self.middle)

    def start(self, pulled):
        """Return free numbers to begin with, for rows of the input (P, m, n_features)."""
        # What is best at the corner where the rows are least.
        rising = (pulled > 0).to(pulled.dtype)
        shares = pulled.new_full((*pulled.shape[:2], len(self.units)), _SHARE)
        return dict(zip(self.keys, (shares, rising, 1 - rising), strict=True))

    def pull(self, lines, rows, alphas):
        """Return rows of the node as rows that lie below them.

        Parameters
        ----------
        lines : Lines
            Of the node, over P domains or one, for what is not the share of these ones.
        rows : Tensor of shape (P, m, *shape)
        alphas : dict
            Free numbers, those of `keys` in [0, 1].

        Returns
        -------
        part : Tensor of shape (P, m, *shape)
            Rows of what the node reads.
        more : Tensor of shape (P, m, n_features)
            Rows of the input.
        shift, error : Tensor of shape (P, m)
            Constants, and what is to be taken off for rounding.
        """
        shares, rising, falling = (alphas[key] for key in self.keys)
        flat = rows.flatten(2)
        is_open = lines.open.flatten(1)[:, self.units].unsqueeze(1)
        taken = flat[:, :, self.units].clamp(max=0) * shares * is_open
        rest = flat.index_add(2, self.units, taken, alpha=-1).view(rows.shape)
        part, shift = lines.pull(rest, alphas.get(self.node))
        more = rising * (taken @ self.rising) + falling * (taken @ self.falling)
        cost = (rising * self.half) @ self.rising.T - (falling * self.half) @ self.falling.T
        above = torch.maximum(self.reach - cost, cost)
        shift = shift + (taken * above).sum(dim=2) - more @ self.middle
        with torch.no_grad():
            error = taken.abs() @ self.error
        return part, more, shift, error


def envelope_of(relaxation):
    """Return the `Envelope` of a relaxation of one box, or None where there is none.

    It is made for ReLUs whose slope is 0 behind a dense layer that reads the input itself.
    """
    graph, ball = relaxation.graph, relaxation.ball
    if len(ball.center) != 1 or ball.norm != "linf" or relaxation.homogeneous:
        return None
    if not relaxation.rounding or relaxation.floors:
        return None
    for i in graph.piecewise:
        node, j = graph.nodes[i], graph.nodes[i].inputs[0]
        source = graph.nodes[j]
        if isinstance(node, Relu) and isinstance(source, Linear) and source.inputs == (0,):
            units = relaxation.lines[i].open[0].flatten().nonzero().squeeze(1)
            if len(units) and not node.slope.any() and len(source.shape) == 1:
                return _made(relaxation, i, j, units)
    return None


def _made(relaxation, i, j, units):
    graph, ball = relaxation.graph, relaxation.ball
    weight = graph.nodes[j].weight[units]
    middle, half = (ball.lower[0] + ball.upper[0]) / 2, (ball.upper[0] - ball.lower[0]) / 2
    reach = weight @ middle + graph.constants[j].flatten()[units] + weight.abs() @ half
    # |w| max |x| + |b| at the least, and the error of weights that are products of others.
    error = _ROOM * gamma(graph, j) * relaxation.weights[j][0].flatten()[units]
    rising, falling = weight.clamp(min=0), weight.clamp(max=0)
    return Envelope(i, units, rising, falling, middle, half, reach, error)
