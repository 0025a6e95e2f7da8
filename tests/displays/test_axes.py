"""What the displays share."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from skrobust.attacks import FGSM, PGD
from skrobust.displays import TradeOffDisplay
from skrobust.displays._axes import axes_for, check_array, named, short_names
from skrobust.training import AdversarialTraining, DataAugmentation


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'skrobust\[plots\]'"):
        TradeOffDisplay([0.1], [0.2]).plot()


def test_axes_are_given_or_made():
    _, ax = plt.subplots()
    assert axes_for(ax) is ax
    assert isinstance(axes_for(None), plt.Axes)
    for other in ("ax", 3, ax.figure, np.array([ax])):
        with pytest.raises(TypeError, match=r"Got ax=.*but expected matplotlib Axes, or None"):
            axes_for(other)


def test_names_of_estimators():
    assert named({"x": 1}) == {"x": 1}
    assert named(1.5) == {"float": 1.5}
    assert named([1, 1.5]) == {"int": 1, "float": 1.5}
    assert named((1, 2)) == {"int 0": 1, "int 1": 2}
    for nothing in ({}, [], ()):
        with pytest.raises(ValueError, match=r"Got estimator=.*but expected one"):
            named(nothing)


def test_short_names_say_what_differs():
    assert short_names([0.1, "a", None, 0.1]) == ["0.1", "a", "None", "0.1"]
    regimes = [DataAugmentation(), AdversarialTraining(), DataAugmentation()]
    assert short_names(regimes) == ["DataAugmentation", "AdversarialTraining", "DataAugmentation"]
    steps = [PGD(5), PGD(20), FGSM()]
    assert short_names(steps) == ["PGD(n_steps=5)", "PGD(n_steps=20)", "FGSM"]
    nested = [AdversarialTraining(attack) for attack in steps]
    assert short_names(nested) == [f"AdversarialTraining(attack={s})" for s in short_names(steps)]
    assert short_names([PGD, FGSM]) == [str(PGD), str(FGSM)]


def test_short_names_never_merge_different_values():
    class Odd:
        """Its representation says more than its parameters."""

        def __init__(self, text):
            self.text = text

        def __repr__(self):
            return self.text

        def get_params(self, deep=True):
            return {}

    assert short_names([Odd("a"), Odd("b"), Odd("a")]) == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("value", "shape", "message"),
    [
        ([[1]], ("n",), r"Got x of shape \(1, 1\), but expected \(n,\)\."),
        ([], ("n",), r"Got x of shape \(0,\), but expected \(n,\)\."),
        ([[1, 2]], ("n", 3), r"Got x of shape \(1, 2\), but expected \(n, 3\)\."),
        ([10**400], ("n",), r"Got x=.*but expected numbers of shape \(n,\)\."),
        ("a", ("n",), r"Got x='a', but expected numbers of shape \(n,\)\."),
    ],
)
def test_arrays_are_checked(value, shape, message):
    with pytest.raises(ValueError, match=message):
        check_array("x", value, shape)


def test_arrays_that_fit():
    array = check_array("x", [[1, 2], [3, 4]], ("n", 2))
    assert array.dtype == np.float64
    assert array.tolist() == [[1, 2], [3, 4]]
