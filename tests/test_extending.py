"""The code of the user guide and of the page "Extending skrobust" runs, and shows what it says."""

import ast
import doctest
import linecache
import re
import textwrap
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("extending*.rst"))
GUIDE = ["user_guide.rst", *sorted(path.name for path in DOCS.glob("guide_*.rst"))]

CODE = re.compile(
    r"^\.\. code-block:: python\n((?: {4}:.*\n)*)\n((?: {3,}.*\n|\n)+)", re.MULTILINE
)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(text):
    """Return the code of a page in its order: blocks as str, lines with prompts as Example."""
    whole = [
        (text.count("\n", 0, match.start(2)), textwrap.dedent(match[2]))
        for match in CODE.finditer(text)
        if ">>>" not in match[2]
    ]
    prompts = [(example.lineno, example) for example in doctest.DocTestParser().get_examples(text)]
    return [block for _, block in sorted(whole + prompts, key=lambda pair: pair[0])]


def run(page, text):
    """Run a page in one namespace; return the number of blocks, and what went wrong, as text."""
    # A module of this name, so that classes can be told where they are from.
    namespace = {"__name__": "__main__"}
    runner, report = doctest.DocTestRunner(verbose=False, optionflags=OPTIONS), []
    pieces = blocks(text)
    for i, piece in enumerate(pieces):
        if isinstance(piece, str):
            # Known to `inspect`, as the code of a file is.
            name = f"<{page} {i}>"
            linecache.cache[name] = (len(piece), None, piece.splitlines(keepends=True), name)
            exec(compile(piece, name, "exec"), namespace)
        else:
            example = doctest.DocTest([piece], namespace, page, page, piece.lineno, text)
            example.globs = namespace  # DocTest makes a copy
            runner.run(example, out=report.append, clear_globs=False)
    return len(pieces), "".join(report)


@pytest.mark.parametrize("page", [*PAGES, *GUIDE])
def test_examples_run(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    n_blocks, report = run(page, text)
    assert report == ""
    assert n_blocks > 0 or page == "extending.rst"


@pytest.mark.parametrize("page", GUIDE)
def test_a_page_of_the_guide_is_no_book(page):
    assert len((DOCS / page).read_text(encoding="utf-8").splitlines()) < 400


def test_the_guide_lists_its_pages():
    text = (DOCS / "user_guide.rst").read_text(encoding="utf-8")
    listed = re.findall(r"^    (guide_\w+)$", text, re.MULTILINE)
    assert sorted(f"{name}.rst" for name in listed) == GUIDE[1:]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "extending.rst"])
def test_a_part_begins_with_a_heading_below_that_of_the_page(page):
    title, line, *_ = (DOCS / page).read_text(encoding="utf-8").splitlines()
    assert line == "-" * len(title)


def test_the_page_includes_all_parts():
    text = (DOCS / "extending.rst").read_text(encoding="utf-8")
    included = re.findall(r"^\.\. include:: (\S+)$", text, re.MULTILINE)
    assert sorted(included) == [page for page in PAGES if page != "extending.rst"]


def lines_of(page):
    """Count the lines of code in the first block of a page, without docstrings and blank ones."""
    code = next(b for b in blocks((DOCS / page).read_text(encoding="utf-8")) if isinstance(b, str))
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return len(ast.unparse(tree).replace("\n\n", "\n").splitlines())


def test_an_attack_takes_thirty_lines():
    assert lines_of("extending_attack.rst") <= 30


def test_the_runner_sees_what_goes_wrong():
    text = "Title\n-----\n\n.. code-block:: python\n\n    a = 1\n\n    b = 2\n\n>>> a + b\n{}\n"
    assert run("page", text.format(3)) == (2, "")
    assert "Expected" in run("page", text.format(4))[1]
    with pytest.raises(ZeroDivisionError):
        run("page", ".. code-block:: python\n\n    1 / 0\n")
