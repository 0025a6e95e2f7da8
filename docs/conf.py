"""Configuration of the documentation."""

import re

from skrobust import __version__

project = "skrobust"
author = "skrobust developers"
copyright = "2026, skrobust developers"
release = __version__
version = release

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]

# Parts of one page, which includes them.
exclude_patterns = ["_build", "extending_*.rst"]
# `name` in single backticks is a Python object.
default_role = "py:obj"

autosummary_generate = True
autodoc_default_options = {"members": True, "inherited-members": False}
# A class page lists the class's own methods; scikit-learn documents the inherited ones.
numpydoc_show_inherited_class_members = False
numpydoc_class_members_toctree = False
# Methods inherited from scikit-learn refer to labels and terms of its own guide.
suppress_warnings = ["ref.ref", "ref.term"]

sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["auto_examples"],
    "filename_pattern": r"/plot_",
    # A script that fails, or warns, is a fault of the library or of the script.
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "skrobust"
html_show_sourcelink = False
html_theme_options = {"show_prev_next": False}


def _skip(app, what, name, obj, skip, options):
    # An inherited method of the members of a StrEnum, whose signature cannot be read.
    return True if name == "maketrans" else None


def _escape_shapes(app, what, name, obj, options, lines):
    # In "(B, *shape)" the star is no emphasis. Escaped here, the docstrings stay readable.
    lines[:] = [re.sub(r"(?<=[ (])\*(?=\w)|^\*(?=\w+\))", r"\\*", line) for line in lines]


def setup(app):
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-docstring", _escape_shapes)
