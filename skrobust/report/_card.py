"""A report as the fields of a model card: plain values, and sections for skops."""

import numpy as np
from sklearn.base import BaseEstimator

from skrobust._version import __version__
from skrobust.report._statements import shown_bounds

__all__ = ["DETAILS", "card_of", "one_line", "sections_of", "shown_epsilon"]

# What only people know; the names are those of model cards.
DETAILS = (
    "model_details",
    "intended_use",
    "factors",
    "evaluation_data",
    "training_data",
    "ethical_considerations",
    "caveats_and_recommendations",
)


def card_of(report):
    """Return the figures and statements of a report under the headings of a model card."""
    said = {name: report.details.get(name) for name in DETAILS}
    classes, counts = np.unique(report.labels, return_counts=True)
    values = {
        "format": "skrobust robustness report",
        "version": 1,
        "skrobust": __version__,
        "model_details": {
            "description": said["model_details"],
            "type": type(report.estimator).__name__,
            "estimator": one_line(report.estimator),
            "classes": classes,
        },
        "intended_use": said["intended_use"],
        "factors": {
            "description": said["factors"],
            "property": one_line(report.property),
            "norm": report.property.norm,
            "bounds": _bounds(report.property.bounds),
            "epsilons": report.epsilons,
            "scale": report.scale,
            "groups": "classes",
        },
        "metrics": {name: _definition(curve) for name, curve in report.curves.items()},
        "evaluation_data": {
            "description": said["evaluation_data"],
            "n_samples": len(report.labels),
            "n_features": len(report.feature_names),
            "feature_names": report.feature_names,
            "class_counts": counts,
        },
        "training_data": said["training_data"],
        "quantitative_analyses": {
            "accuracy": _with_interval(report.accuracy, report.accuracy_interval),
            "curves": {name: _figures(curve) for name, curve in report.curves.items()},
            "by_class": report.by_class(),
            "worst_examples": {
                name: getattr(report.examples, name)
                for name in ("index", "distance", "labels", "before", "after")
            },
        },
        "ethical_considerations": said["ethical_considerations"],
        "caveats_and_recommendations": {
            "description": said["caveats_and_recommendations"],
            "assumed": report.assumed,
            "not_checked": report.not_checked,
            "not_measured": report.not_measured,
            "messages": report.messages,
            "evidence": None if report.evidence is None else str(report.evidence),
        },
    }
    return _plain(values)


def one_line(thing):
    """Return the representation of an object, without line breaks."""
    if isinstance(thing, BaseEstimator):
        return " ".join(thing.__repr__(N_CHAR_MAX=2000).split())
    return " ".join(repr(thing).split())


def shown_epsilon(epsilon):
    """Return a radius as text."""
    return f"{epsilon:.6g}"


def _definition(curve):
    names = ("title", "meaning", "side", "unit", "larger_is_better", "scorer")
    interval = {"method": curve.method, "confidence": curve.confidence}
    return {name: getattr(curve, name) for name in names} | {"interval": interval}


def _figures(curve):
    return {"scores": curve.scores, "low": curve.low, "high": curve.high}


def _with_interval(score, interval):
    return {"score": score} | vars(interval)


def _bounds(bounds):
    return list(bounds) if isinstance(bounds, tuple | list) else bounds


def _plain(value):
    """Return the value with lists, dicts, text and finite numbers alone; None for the others."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, bool | int | str | None) else str(value)


# ---- sections ----------------------------------------------------------------------------


def sections_of(report):
    """Return Markdown by the names of sections, for ``skops.card.Card.add``."""
    return {
        "Robustness": _introduction(report),
        "Robustness/Scores": _table(report),
        "Robustness/Assumed": _listed(report.assumed),
        "Robustness/Not checked": _listed(report.not_checked),
        "Robustness/Not measured": _listed(
            f"{title}: {reason}" for title, reason in report.not_measured.items()
        )
        or "All scores were measured.",
    }


def _introduction(report):
    interval = report.accuracy_interval
    return (
        f"Measured by skrobust {__version__} on {len(report.labels)} samples: {_words(report)}. "
        f"Accuracy is {report.accuracy:.3f} [{interval.low:.3f}, {interval.high:.3f}]."
    )


def _words(report):
    domain = report.property.bounds
    where = "unbounded inputs" if domain is None else f"inputs in {shown_bounds(domain)}"
    return f"`{one_line(report.property)}` at each epsilon, {where}"


def _table(report):
    """Return a Markdown table: a row a score, a column an epsilon."""
    head = ["score", *(f"epsilon {shown_epsilon(epsilon)}" for epsilon in report.epsilons)]
    rows = [head, ["---"] * len(head)]
    for curve in report.curves.values():
        triples = zip(curve.scores, curve.low, curve.high, strict=True)
        rows.append([curve.title, *(f"{s:.3f} [{lo:.3f}, {hi:.3f}]" for s, lo, hi in triples)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _listed(sentences):
    return "\n".join(f"- {sentence}" for sentence in sentences)
