"""What conjunctions and disjunctions share."""

import pytest

from skrobust.properties._pair import PropertyPair
from tests.properties._cases import CR, SR


@pytest.mark.parametrize("pair", [CR(0.1) & SR(0.1), CR(0.1) | SR(0.1)], ids=repr)
def test_pairs_share_one_ball(pair):
    assert isinstance(pair, PropertyPair)
    pair.set_params(epsilon=0.2, bounds=None)
    assert (pair.left.epsilon, pair.right.epsilon, pair.right.bounds) == (0.2, 0.2, None)
    assert pair.reference == "label" and pair.check() is pair
    pair.left.set_params(epsilon=0.3)
    with pytest.raises(ValueError, match=r"epsilon=0.3 on the left and epsilon=0.2 on the right"):
        pair.check()
