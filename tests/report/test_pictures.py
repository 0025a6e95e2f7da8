"""Drawings and images that a page holds."""

import base64
import io
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from matplotlib.image import imread

from skrobust.report._examples import WorstExamples
from skrobust.report._pictures import curve_picture, example_pictures


@pytest.fixture(scope="module")
def drawing(report):
    return curve_picture(report, ["security", "satisfaction"], "share", "Curves & <more>", 3)


def test_drawing_is_an_element_that_scales(drawing):
    root = ET.fromstring(drawing)
    assert root.tag == "svg" and "viewBox" in root.attrib and "width" not in root.attrib
    assert root.get("role") == "img"
    assert root[0].tag == "title" and root[0].text == "Curves & <more>"
    assert root.get("aria-labelledby") == root[0].get("id")


def test_names_inside_are_the_pictures_own(drawing):
    root = ET.fromstring(drawing)
    names = [element.get("id") for element in root.iter() if "id" in element.attrib]
    assert len(names) == len(set(names)) and all(name.startswith("picture-3-") for name in names)
    for element in root.iter("use"):
        assert element.get("href").removeprefix("#") in names
    for name in re.findall(r"url\(#([^)]+)\)", drawing):
        assert name in names


def test_colors_are_those_of_the_page(drawing):
    assert (
        "var(--ink)" in drawing and "var(--series-0)" in drawing and "var(--series-1)" in drawing
    )
    assert "#010203" not in drawing and "#0072b2" not in drawing.lower()


def test_equal_curves_give_equal_drawings(report, drawing):
    again = curve_picture(report, ["security", "satisfaction"], "share", "Curves & <more>", 3)
    assert again == drawing
    assert "http" not in drawing


def test_one_curve_names_the_axis(report):
    text = curve_picture(report, ["severity"], "distance", "Severity", 1)
    assert "adversarial severity" in text


def decoded(uri):
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return imread(io.BytesIO(base64.b64decode(data)))


def example(originals, perturbed):
    n = len(originals)
    zeros = np.zeros(n, dtype=int)
    return WorstExamples(zeros, zeros + 0.5, originals, perturbed, zeros, zeros, zeros)


def test_images_by_hand(report):
    originals, perturbed = np.array([[0.0, 1.0]]), np.array([[0.5, 1.0]])
    small = replace(report, examples=example(originals, perturbed), image_shape=(1, 2))
    ((before, after, change),) = example_pictures(small)
    np.testing.assert_allclose(decoded(before)[0, :, 0], [0, 1])
    np.testing.assert_allclose(decoded(after)[0, :, 0], [0.5, 1], atol=0.01)
    moved, still = decoded(change)[0]
    assert moved[2] > moved[0] and np.ptp(still[:3]) < 0.02  # blue where it rose, else white


def test_images_in_color(report):
    rows = np.linspace(0, 1, 12)[None]
    colored = replace(report, examples=example(rows, rows[:, ::-1]), image_shape=(3, 2, 2))
    ((before, _, _),) = example_pictures(colored)
    assert decoded(before).shape == (2, 2, 4)
    np.testing.assert_allclose(decoded(before)[0, 0, :3], rows[0, [0, 4, 8]], atol=0.01)


def test_no_examples_no_images(report):
    none = np.empty((0, 64))
    assert example_pictures(replace(report, examples=example(none, none))) == []
