"""No test of the data sets reaches the network, or the folders of whoever runs it."""

import pytest

from skrobust.datasets import _download


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        pytest.fail("the network was asked")

    monkeypatch.setattr(_download, "fetch_openml", refuse)
    monkeypatch.setattr(_download, "urlopen", refuse)
    monkeypatch.delenv("SKROBUST_DATA", raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "scikit_learn_data"))
