"""Rows of the inputs beside the outputs of a network: values, precision, and the graph."""

import numpy as np
import torch

from skrobust import RobustClassifier
from skrobust.graphs import read_graph
from skrobust.networks import as_network, with_input_rows

X = np.random.default_rng(0).uniform(size=(30, 3))
Y = (X[:, 0] > 0.5).astype(int)
A = np.array([[1.0, -2.0, 0.5], [0.0, 1 / 3, 1.0]])


def test_outputs_come_first_and_rows_after():
    model = RobustClassifier(hidden_layer_sizes=(4,), max_epochs=1, random_state=0).fit(X, Y)
    network = as_network(model)
    wider = with_input_rows(network, A)
    rows = wider.rows(X)
    assert rows.dtype == torch.float64 and len(wider.classes) == 4
    for outputs in (wider(rows).detach(), wider.replay(rows)):
        own = network(network.rows(X)).detach().double()
        np.testing.assert_allclose(outputs[:, :2], own, atol=1e-6)
        np.testing.assert_allclose(outputs[:, 2:], X @ A.T, rtol=1e-12)
    np.testing.assert_allclose(read_graph(wider)(rows)[:, 2:], X @ A.T, rtol=1e-12)
