"""A report as one page of HTML that loads nothing."""

import os
from pathlib import Path

import numpy as np

from skrobust._version import __version__
from skrobust.report._card import DETAILS, one_line, shown_epsilon
from skrobust.report._pictures import curve_picture, example_pictures
from skrobust.report._statements import shown_bounds

__all__ = ["page_of"]

_HERE = Path(__file__).parent
_MOST_FEATURES = 5  # of an example that are listed

# Which curves share a picture: names, vertical axis, caption.
_PICTURES = (
    (
        ("constraint_accuracy", "security", "surviving", "satisfaction"),
        "share of samples",
        "The property with the true label, from the weakest test to the proof. The truth lies "
        "between what is proved and what survives attack.",
    ),
    (
        ("global_robustness", "frequency"),
        "share of samples",
        "Whether the prediction, right or wrong, stays the same in the ball.",
    ),
    (("severity",), "distance", "How far the closest adversarial examples are, on average."),
)

_SIDES = {
    "above": "from above: the true value may be lower",
    "below": "from below: the true value may be higher",
    "itself": "the value itself",
    "both": "from either side",
}

_TITLES = {name: name.replace("_", " ").capitalize() for name in DETAILS}


def page_of(report, path=None):
    """Return the HTML of a report, whose links start from the folder of `path`."""
    try:
        import matplotlib as mpl  # noqa: F401  (for the pictures)
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise ImportError(
            f"Got no {error.name}, but to_html needs it. Install it by: "
            "pip install 'skrobust[plots]'."
        ) from error
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html").render(
        report=report,
        name=type(report.estimator).__name__,
        estimator=one_line(report.estimator),
        property=one_line(report.property),
        version=__version__,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        epsilons=[shown_epsilon(epsilon) for epsilon in report.epsilons],
        domain=None if report.property.bounds is None else shown_bounds(report.property.bounds),
        classes=np.unique(report.labels, return_counts=True),
        by_class=report.by_class(),
        sides=_SIDES,
        pictures=_pictures(report),
        examples=_examples(report),
        n_wrong=int((report.labels != report.predictions).sum()),
        details=[(_TITLES[name], text) for name, text in report.details.items()],
        evidence=_link(report.evidence, path),
        attack=one_line(report.attack),
        verifier=one_line(report.verifier),
    )


def _pictures(report):
    """Return pairs of an SVG and its caption."""
    shown = []
    for names, axis, caption in _PICTURES:
        names = [name for name in names if name in report.curves]
        if not any(result.n_unknown for result in report.results.get("satisfaction", ())):
            names = [name for name in names if name != "surviving"]  # the same curve
        if names:
            titles = ", ".join(report.curves[name].title for name in names)
            label = f"{titles} against epsilon. {_ends(report, names)}"
            shown.append((curve_picture(report, names, axis, label, len(shown) + 1), caption))
    return shown


def _ends(report, names):
    """Return what a curve shows in words: its first and its last value."""
    first, last = shown_epsilon(report.epsilons[0]), shown_epsilon(report.epsilons[-1])
    curves = [report.curves[name] for name in names]
    texts = [
        f"{c.title}: {c.scores[0]:.3f} at {first}, {c.scores[-1]:.3f} at {last}" for c in curves
    ]
    return "; ".join(texts) + "."


def _examples(report):
    """Return what the page shows of each worst example."""
    examples = report.examples
    images = [None] * len(examples) if report.image_shape is None else example_pictures(report)
    return [
        {
            "index": int(examples.index[i]),
            "distance": f"{examples.distance[i]:.4g}",
            "label": examples.labels[i],
            "before": examples.before[i],
            "after": examples.after[i],
            "images": image,
            "changes": _changes(report, examples.originals[i], examples.perturbed[i]),
        }
        for i, image in enumerate(images)
    ]


def _changes(report, original, perturbed):
    """Return names, old and new values of the features that change most, in their units."""
    change = np.abs(np.subtract(perturbed, original, dtype=np.float64))
    change = change if report.scale is None else change / report.scale
    most = np.argsort(-change, kind="stable")[:_MOST_FEATURES]
    return [
        (report.feature_names[j], f"{original[j]:.5g}", f"{perturbed[j]:.5g}")
        for j in most
        if change[j] > 0
    ]


def _link(evidence, path):
    """Return the folder of evidence as a link from the page, or None."""
    if evidence is None:
        return None
    start = Path(path).absolute().parent if path is not None else Path.cwd()
    return Path(os.path.relpath(Path(evidence).absolute(), start)).as_posix()
