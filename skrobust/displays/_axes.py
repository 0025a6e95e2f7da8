"""What all displays share: pyplot where it is installed, axes, and short names."""

import numpy as np

__all__ = []


def import_pyplot():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "The displays need matplotlib. Install it by: pip install 'skrobust[plots]'."
        ) from error
    return plt


def _axes(ax):
    return import_pyplot().subplots(layout="constrained")[1] if ax is None else ax


def _named(estimators):
    """Return a dict of names to estimators; equal class names are numbered."""
    if isinstance(estimators, dict):
        return estimators
    if not isinstance(estimators, list | tuple):
        estimators = [estimators]
    names = [type(estimator).__name__ for estimator in estimators]
    if len(set(names)) < len(names):
        names = [f"{name} {i}" for i, name in enumerate(names)]
    return dict(zip(names, estimators, strict=True))


def _short(value):
    """Name a parameter's value: the class for objects without parameters of their own."""
    text = " ".join(str(value).split())
    return text.removesuffix("()")


def _labels(predictor, rows):
    if len(rows) == 0:
        return np.array([])
    index = predictor.replay(predictor.rows(rows)).argmax(dim=1)
    return predictor.classes[index.cpu().numpy()]
