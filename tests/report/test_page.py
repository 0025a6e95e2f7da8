"""The page, as a parser reads it: whole, by itself, and for everyone."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from skrobust.report._page import page_of

VOID = {"meta", "img", "br", "link", "input", "hr"}
LOADING = {"src", "srcset", "poster", "data", "action", "formaction", "background", "ping"}


class Page(HTMLParser):
    """Elements in order, with their attributes and text; and that each is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inner = self.open[-1] if self.open else ""
        self.text[inner] = self.text.get(inner, "") + data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def text(report, tmp_path_factory):
    return page_of(report, report.evidence.parent / "report.html")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_page_loads_nothing(page, text):
    for tag, attrs in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "link", "base")
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in LOADING:
                assert value.startswith("data:"), (tag, name)
            if name.endswith("href"):
                assert "//" not in value and not value.startswith(("http", "data", "javascript"))
    assert not re.search(r"@import|url\((?!#)", text)


def test_page_names_what_it_holds(page, text):
    assert page.all("html")[0]["lang"] == "en"
    assert page.text["title"].startswith("Robustness of RobustClassifier")
    assert any("viewport" in attrs.values() for attrs in page.all("meta"))
    headings = [tag for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert headings[0] == "h1" and headings.count("h1") == 1 and set(headings[1:]) == {"h2"}
    assert len(page.all("table")) == len(page.all("caption")) > 0
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))
    assert page.all("img") and all(attrs.get("alt") for attrs in page.all("img"))
    assert all(attrs["role"] == "img" for attrs in page.all("svg"))
    for query in ("prefers-color-scheme: dark", "@media print", "max-width"):
        assert query in text


def test_links_inside_have_their_aims(page):
    names = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(names) == len(set(names))
    for _, attrs in page.elements:
        for value in (attrs.get("aria-labelledby"), *_fragments(attrs)):
            assert value is None or value in names


def _fragments(attrs):
    return [value[1:] for name, value in attrs.items() if name == "href" and value[0] == "#"]


def test_evidence_is_linked_from_where_the_page_lies(page, report):
    (link,) = [attrs["href"] for attrs in page.all("a") if attrs["href"][0] != "#"]
    assert link == "evidence/"
    assert (report.evidence.parent / link).is_dir()
    elsewhere = Page(page_of(report, report.evidence.parent / "pages" / "report.html"))
    assert {"href": "../evidence/"} in elsewhere.all("a")


def test_texts_of_users_are_texts(text, page):
    assert "<script>" not in text and "&lt;script&gt;alert(1)" in text
    assert "Digits <script>" in page.text["dd"]


def test_page_has_the_figures_and_the_statements(text, report):
    for curve in report.curves.values():
        assert curve.title in text and curve.meaning in text
    assert f"{report.curves['security'].scores[-1]:.3f}" in text
    for statement in (*report.assumed, *report.not_checked):
        assert statement.replace("'", "&#39;") in text
    assert text.count("<svg") == 3


def test_a_forest_says_what_it_lacks(forest_report):
    text = page_of(forest_report)
    page = Page(text)
    assert "Scores that this estimator cannot have" in text
    assert "Adversarial severity" in page.text["dt"]
    assert page.all("img") == []  # without a shape, features are listed
    assert "feature " in text and "No evidence files were kept" in text
    assert text.count("<svg") == 2


def test_messages_and_scale_are_shown(forest_report):
    scale = np.full(64, 2.0)
    changed = replace(forest_report, messages=("Security at epsilon 0.1: x < y",), scale=scale)
    text = page_of(changed)
    assert "Security at epsilon 0.1: x &lt; y" in text
    assert "of each feature&#39;s scale" in text or "of each feature's scale" in text


def test_no_examples_is_said(forest_report):
    none = {name: values[:0] for name, values in vars(forest_report.examples).items()}
    changed = replace(forest_report, examples=replace(forest_report.examples, **none))
    assert "No counterexample was found." in page_of(changed)


# ---- contrast ------------------------------------------------------------------------------


def luminance(color):
    """Of a color, as WCAG 2 defines it."""
    color = color * 2 if len(color) == 3 else color
    parts = [int(color[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_hand():
    assert contrast("000000", "ffffff") == pytest.approx(21)
    assert contrast("fff", "ffffff") == 1


def schemes():
    import skrobust.report as room

    text = (Path(room.__file__).parent / "page.css").read_text(encoding="utf-8")
    found = [
        dict(re.findall(r"--([\w-]+): #([0-9a-f]+);", block))
        for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    ]
    assert len(found) == 3  # light, dark, print
    return found


@pytest.mark.parametrize("colors", schemes(), ids=["light", "dark", "print"])
def test_colors_can_be_read(colors):
    for name in ("ink", "quiet", "link", "warn"):
        for ground in ("paper", "panel"):
            assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
    for i in range(7):  # graphics: 3 to 1
        assert contrast(colors[f"series-{i}"], colors["paper"]) >= 3, i
