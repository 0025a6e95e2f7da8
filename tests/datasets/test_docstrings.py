"""The shared part of the docstrings is filled in, with the facts of each data set."""

import inspect

import pytest

from skrobust.datasets import (
    fetch_cifar10,
    fetch_fashion_mnist,
    fetch_gtsrb,
    fetch_mnist,
    fetch_svhn,
)
from skrobust.datasets._docstrings import documented
from skrobust.datasets._sources import GTSRB, MNIST


@pytest.mark.parametrize(
    ("fetch", "facts"),
    [
        (fetch_mnist, ("mnist : Bunch", "(n_samples, 784)", "tuple (1, 28, 28)")),
        (fetch_fashion_mnist, ("fashion_mnist : Bunch", "(n_samples, 784)")),
        (fetch_cifar10, ("cifar10 : Bunch", "(n_samples, 3072)", "tuple (3, 32, 32)")),
        (fetch_svhn, ("svhn : Bunch", "(n_samples, 3072)", "download the published files")),
        (fetch_gtsrb, ("gtsrb : Bunch", "(n_samples, 2304)", "OpenML does not have this")),
    ],
)
def test_facts_stand_in_the_docstring(fetch, facts):
    doc = inspect.getdoc(fetch)
    for fact in (*facts, "classes from 0 to 9"):
        assert fact in doc
    # One level of sections, as numpydoc wants it, whatever the loader's own indentation was.
    for section in ("Parameters", "Returns", "Raises", "References", "Examples"):
        assert f"\n{section}\n{'-' * len(section)}\n" in doc
    assert "{" not in doc.split("Examples")[0].replace('{"train", "test", "all"}', "")


def test_mark_is_replaced_at_its_own_indentation():
    def plain():
        """Fetch.

        {shared}
        """

    def compiled():
        pass

    compiled.__doc__ = "Fetch.\n\n{shared}\n"  # as Python 3.13 keeps it
    docs = {inspect.getdoc(documented(MNIST)(loader)) for loader in (plain, compiled)}
    assert len({doc.replace("compiled", "plain") for doc in docs}) == 1


def test_without_docstrings_nothing_is_filled_in():
    def loader():
        pass

    assert documented(GTSRB)(loader).__doc__ is None
