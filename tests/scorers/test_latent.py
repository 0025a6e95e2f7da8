"""Points decoded from noisy codes."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from skrobust.scorers._latent import LatentNoise


class Double:
    """Codes are twice the rows."""

    def encode(self, X):
        return 2 * X

    def decode(self, Z):
        return Z / 2


X = np.array([[0.2, 0.4], [0.9, 0.5]])


def test_noise_is_in_units_of_the_codes():
    points = LatentNoise(Double(), None)(X, None, 0.5, 20_000, np.random.default_rng(0))
    assert points.shape == (2, 20_000, 2)
    np.testing.assert_allclose(points.mean(axis=1), X, atol=0.01)
    np.testing.assert_allclose(points.std(axis=1), 0.25, atol=0.01)


def test_points_stay_inside_the_bounds():
    points = LatentNoise(Double(), (0.1, 0.8))(X, None, 5.0, 50, np.random.default_rng(0))
    assert points.min() == 0.1 and points.max() == 0.8


@pytest.mark.parametrize(
    "codes", [PCA(2), torch.nn.Module(), Double()], ids=lambda codes: type(codes).__name__
)
def test_kinds_of_autoencoders(codes):
    if isinstance(codes, PCA):
        codes.fit(X)
    if isinstance(codes, torch.nn.Module):
        codes.encode = codes.decode = torch.nn.Identity()
    latent = LatentNoise(codes, None)
    decoded = latent.decoded(latent.codes(X), 2)
    np.testing.assert_allclose(decoded, X, atol=1e-6)


@pytest.mark.parametrize("thing", [None, 3, Double, torch.nn.Linear(2, 2)], ids=str)
def test_what_cannot_encode_is_named(thing):
    with pytest.raises(TypeError, match=r"Got autoencoder=.*but expected a fitted object with"):
        LatentNoise(thing, None)
