"""Smooth units as they are stored: the checker computes the same function."""

import numpy as np
import pytest
import torch

from skrobust.evidence import stored_node
from skrobust.evidence._rules import floats
from skrobust.evidence._smooth_rules import KINDS
from tests.bounds._smooth_units import UNITS


@pytest.mark.parametrize("name", UNITS)
def test_the_stored_function_is_the_one_of_the_node(name):
    unit = UNITS[name]
    kind, arrays = stored_node(unit, None, 1)
    stored = KINDS[kind](arrays, [1], floats)
    z = np.linspace(-12, 12, 1001)
    for own, theirs in ((stored.value, unit.value), (stored.slope, unit.slope)):
        assert own(z) == pytest.approx(theirs(torch.as_tensor(z)).numpy(), rel=1e-12, abs=1e-13)
    assert stored.bends == unit.bends
    assert stored.convex_first == unit.convex_first or not unit.bends
    assert stored.growth == unit.growth
    if not name.startswith(("elu", "celu")):  # whose range follows from their lines
        assert stored.range == unit.range
