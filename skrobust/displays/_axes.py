"""What all displays share: pyplot where it is installed, checks, names, and a legend outside."""

from textwrap import fill

import numpy as np

from skrobust._validation import expected

__all__ = []

# Colors that people of any color vision tell apart (Okabe and Ito, "Color universal design",
# 2008), in an order that alternates dark and light; markers and lines do so in gray print.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (1, 1)))
# After the first round of colors each has another marker.
SERIES = tuple(
    {"color": color, "marker": _MARKERS[(i + turn) % len(_MARKERS)], "linestyle": _LINES[i]}
    for turn in range(len(_MARKERS))
    for i, color in enumerate(_COLORS)
)
_WIDEST = 40  # characters of a line in a legend
_ROOM = 0.6  # inches of a figure above and below its legend


def import_pyplot():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "The displays need matplotlib. Install it by: pip install 'skrobust[plots]'."
        ) from error
    return plt


def axes_for(ax, **kwargs):
    """Return `ax`, checked, or the axes of a new figure."""
    plt = import_pyplot()
    if ax is None:
        return plt.subplots(layout="constrained", **kwargs)[1]
    if not isinstance(ax, plt.Axes):
        raise TypeError(expected("ax", ax, "matplotlib Axes, or None"))
    return ax


def legend_beside(ax, *, widen, **kwargs):
    """Draw the legend on the right of the axes: inside, it would hide what is drawn.

    With `widen`, the figure becomes wider by as much, so that the axes keep their width, and as
    high as the legend needs.
    """
    legend = ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), **kwargs)
    for text in legend.get_texts():
        text.set_text(fill(text.get_text(), _WIDEST))
    if widen:
        figure = ax.figure
        width, height = figure.get_size_inches()
        extent = legend.get_window_extent(figure.canvas.get_renderer())
        needed = extent.height / figure.dpi + _ROOM
        figure.set_size_inches(width + extent.width / figure.dpi, max(height, needed))
    return legend


def check_array(name, value, shape, of=""):
    """Return `value` as a float64 array, or raise where it has another shape or is empty.

    Parameters
    ----------
    shape : tuple of int or str
        A str such as "n_epsilons" stands for any number above 0.
    of : str, default=""
        The argument that the first size is that of.
    """
    shown = "(" + ", ".join(str(size) for size in shape) + ("," * (len(shape) == 1)) + ")"
    shown += f", as many as {of}" if of else ""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected(name, value, f"numbers of shape {shown}")) from None
    if array.ndim != len(shape) or not all(map(_is_size, shape, array.shape)):
        raise ValueError(f"Got {name} of shape {array.shape}, but expected {shown}.")
    return array


def _is_size(size, n):
    return n == size if isinstance(size, int) else n > 0


def check_dict(name, value, of_what):
    """Return `value` if it is a dict that is not empty, else raise."""
    if not isinstance(value, dict):
        raise TypeError(expected(name, value, f"a dict of names to {of_what}"))
    if not value:
        raise ValueError(expected(name, value, f"one name at least, each with {of_what}"))
    return value


def named(estimators):
    """Return a dict of names to estimators; equal class names are numbered."""
    if isinstance(estimators, dict):
        return check_dict("estimator", estimators, "a fitted classifier")
    if not isinstance(estimators, list | tuple):
        estimators = [estimators]
    if not estimators:
        raise ValueError(expected("estimator", estimators, "one fitted classifier at least"))
    names = [type(estimator).__name__ for estimator in estimators]
    if len(set(names)) < len(names):
        names = [f"{name} {i}" for i, name in enumerate(names)]
    return dict(zip(names, estimators, strict=True))


def short_names(values):
    """Name the values of a parameter: objects by their class and the parameters that differ.

    Parameters
    ----------
    values : list of object
        Values with the same representation count as the same one.

    Returns
    -------
    list of str
        As many; the names of different values differ.
    """
    full = [_one_line(value) for value in values]
    names = [_short_name(value, values) for value in values]
    if len(set(zip(names, full, strict=True))) > len(set(names)):
        return full  # what tells them apart is in none of their parameters
    return names


def _short_name(value, values):
    if isinstance(value, type) or not hasattr(value, "get_params"):
        return _one_line(value)
    params = value.get_params(deep=False)
    others = [other.get_params(deep=False) for other in values if type(other) is type(value)]
    differing = {
        name: short_names([other.get(name) for other in [params, *others]])[0]
        for name in params
        if len({_one_line(other.get(name)) for other in others}) > 1
    }
    inside = ", ".join(f"{name}={text}" for name, text in differing.items())
    return type(value).__name__ + (f"({inside})" if inside else "")


def _one_line(value):
    return " ".join(str(value).split())


def labels_of(predictor, rows):
    """Return the classes that a network predicts; none of no rows."""
    if len(rows) == 0:
        return np.array([])
    index = predictor.replay(predictor.rows(rows)).argmax(dim=1)
    return predictor.classes[index.cpu().numpy()]
