"""Operations of a graph that bend everywhere. They are read for training only."""

from dataclasses import dataclass

from skrobust.graphs._nodes import Node

__all__ = ["Monotone"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Monotone(Node):
    """A function of each entry that grows with it, or stays: tanh, sigmoid, softplus, ELU, SELU.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    operation : str
        Name of the torch function.
    function : callable
        From inputs to outputs. It may change its input.
    """

    operation: str
    function: object

    is_affine = False

    @property
    def name(self):
        return repr(self.operation)

    def apply(self, z):
        return self.function(z.clone())
