"""What is known of all nodes of a graph over balls."""

from dataclasses import dataclass, field

import torch

from skrobust.balls import Ball

__all__ = ["Relaxation"]


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Intervals of all nodes and lines of the piecewise ones, over B balls.

    Parameters
    ----------
    graph : Graph
    ball : Ball
    lows, highs : list of Tensor of shape (B, *shape)
        Proved bounds of each node.
    weights : list of Tensor of shape (B, *shape) or None
        For each node what its rounding is relative to; see `_rounding`. None where bounds are
        not moved outwards by their rounding.
    lines : dict of int to Lines or PoolLines
        Empty where none were asked for.
    homogeneous : bool
        Whether affine nodes go without their constants, as for slopes.
    empty : bool Tensor of shape (B,)
        Where the intervals contradict each other: no point of the ball meets what was known.
    rounding : bool, default=True
        Whether bounds are moved outwards by what rounding can do.
    floors : list of Tensor of shape (B,) or None, default=()
        For each node what numbers that are too small for the dtype can cost a bound; empty
        where that is not accounted for, as in float64.
    envelope : Envelope or None, default=None
        Other lines above the units of a first layer; used where rows come with free numbers
        for them.
    """

    graph: object
    ball: Ball
    lows: list
    highs: list
    weights: list
    lines: dict
    homogeneous: bool
    empty: torch.Tensor
    rounding: bool = True
    floors: list = field(default_factory=list)
    envelope: object = None

    def __len__(self):
        return len(self.ball.center)

    def __getitem__(self, index):
        n = len(self.empty)

        def at(part):
            # Domains of one ball share what does not differ between them.
            return part if part is None or len(part) == 1 < n else part[index]

        return Relaxation(
            self.graph,
            self.ball if len(self) == 1 < n else self.ball[index],
            [at(part) for part in self.lows],
            [at(part) for part in self.highs],
            [at(part) for part in self.weights],
            {i: at(lines) for i, lines in self.lines.items()},
            self.homogeneous,
            self.empty[index],
            self.rounding,
            [at(part) for part in self.floors],
            self.envelope,
        )

    @property
    def sources(self):
        """Positions of the nodes that piecewise nodes read, each with a list of those nodes."""
        readers = {}
        for i in self.graph.piecewise:
            readers.setdefault(self.graph.nodes[i].inputs[0], []).append(i)
        return readers
