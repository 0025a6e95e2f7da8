"""The pictures of a page: drawings as inline SVG, images as data URIs."""

import base64
import io
import re
from xml.etree import ElementTree as ET

import numpy as np

from skrobust.displays import SERIES, RobustnessCurveDisplay, as_image

__all__ = ["curve_picture", "example_pictures"]

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_INK = "#010203"  # stands for the color of text, which the page knows

# What a style sheet can change between light and dark.
_VARIABLES = {_INK: "var(--ink)"} | {
    style["color"].lower(): f"var(--series-{i})" for i, style in enumerate(SERIES[:7])
}


def curve_picture(report, names, score_name, title, number):
    """Return the curves of some scores as SVG, colored by the page's style.

    Parameters
    ----------
    report : RobustnessReport
    names : list of str
        Of curves.
    score_name, title : str
        Of the vertical axis; of the picture, for those who do not see it.
    number : int
        Of the picture on the page: names inside must differ between pictures.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    curves = [report.curves[name] for name in names]
    display = RobustnessCurveDisplay(
        report.epsilons,
        {curve.title: curve.scores for curve in curves},
        intervals={curve.title: np.transpose([curve.low, curve.high]) for curve in curves},
        score_name=score_name if len(curves) > 1 else curves[0].title.lower(),
        shares=all(curve.unit == "share" for curve in curves),
    )
    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style = dict.fromkeys(inks, _INK) | {
        "svg.fonttype": "none",
        "svg.hashsalt": "skrobust",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "font.size": 11,
    }
    stream = io.StringIO()
    with rc_context(style):
        figure = Figure(figsize=(4.6, 3.9), layout="constrained")
        ax = figure.subplots()
        ax.patch.set_visible(False)
        ax.grid(alpha=0.25, color=_INK)
        display.plot(ax=ax)
        ax.get_legend().remove()
        if len(curves) > 1:
            figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return _inline(stream.getvalue(), title, f"picture-{number}")


def _inline(text, title, prefix):
    """Return a drawing of matplotlib as an element of a page."""
    root = ET.fromstring(text)
    metadata = root.find(f"{{{_SVG}}}metadata")
    if metadata is not None:
        root.remove(metadata)
    for element in root.iter():
        if "id" in element.attrib:
            element.set("id", f"{prefix}-{element.get('id')}")
        if _LINK in element.attrib:  # to a marker inside the same drawing
            element.set("href", f"#{prefix}-{element.attrib.pop(_LINK).removeprefix('#')}")
        for name, value in element.attrib.items():
            if name != "href":
                element.set(name, _colored(value.replace("url(#", f"url(#{prefix}-")))
        if element.text and element.tag == f"{{{_SVG}}}style":
            element.text = None
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title")
    label = ET.Element(f"{{{_SVG}}}title", {"id": f"{prefix}-title"})
    label.text = title
    root.insert(0, label)
    # HTML knows the namespace of <svg> by itself.
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return ET.tostring(root, encoding="unicode")


def _colored(value):
    return re.sub(r"#[0-9a-fA-F]{6}\b", lambda m: _VARIABLES.get(m[0].lower(), m[0]), value)


def example_pictures(report):
    """Return, for each worst example, data URIs of the sample, the point and the difference."""
    examples, shape = report.examples, report.image_shape
    if len(examples) == 0:
        return []
    both = np.stack([examples.originals, examples.perturbed]).astype(np.float64)
    low, high = both.min(), both.max()
    difference = both[1] - both[0]
    reach = np.abs(difference).max()
    return [
        (
            *(_png(as_image(row, shape, low, high), "gray", low, high) for row in pair),
            _png(as_image(change, shape, -reach, reach), "RdBu", -reach, reach),
        )
        for pair, change in zip(both.swapaxes(0, 1), difference, strict=True)
    ]


def _png(image, colors, low, high):
    from matplotlib.image import imsave

    stream = io.BytesIO()
    imsave(stream, image, cmap=colors, vmin=low, vmax=high, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
