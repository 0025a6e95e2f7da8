"""Codes and points of autoencoders of every kind, as arrays and as tensors."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import StandardScaler

from skrobust.estimators import Autoencoder
from skrobust.networks import LatentSpace, as_autoencoder

RNG = np.random.default_rng(0)
X = RNG.random((20, 4)).astype(np.float32)


class Double:
    """Codes are twice the rows."""

    def encode(self, X):
        return 2 * X

    def decode(self, Z):
        return Z / 2


class Net(torch.nn.Module):
    """Convolutional codes of two axes, in float64, with a dropout that is off outside training."""

    def __init__(self):
        super().__init__()
        self.down = torch.nn.Linear(4, 6).double()
        self.up = torch.nn.Linear(6, 4).double()
        self.dropout = torch.nn.Dropout(0.5)

    def encode(self, x):
        return self.dropout(self.down(x)).view(-1, 2, 3)

    def decode(self, z):
        return self.up(z.flatten(1))


def autoencoder():
    return Autoencoder(2, max_epochs=3, random_state=0).fit(X)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PCA(2).fit(X),
        lambda: PCA(3, whiten=True).fit(X.astype(np.float64)),
        autoencoder,
        Net,
        Double,
        lambda: StandardScaler().fit(X),
        lambda: FrozenEstimator(PCA(2).fit(X)),
    ],
    ids=["PCA", "whitened", "Autoencoder", "module", "plain object", "scaler", "frozen"],
)
def test_tensors_and_arrays_agree(make):
    latent = LatentSpace(make())
    codes = latent.codes(X)
    x = torch.tensor(X)
    np.testing.assert_allclose(latent.encode(x).numpy(), codes, atol=1e-5)
    decoded = latent.decoded(codes, 4)
    as_tensor = latent.decode(latent.encode(x), 4)
    assert as_tensor.dtype == x.dtype and as_tensor.shape == (20, 4)
    np.testing.assert_allclose(as_tensor.detach().numpy(), decoded, atol=1e-5)
    latent.check_rows(X[:1])


@pytest.mark.parametrize("whiten", [True, False])
def test_pca_is_two_affine_maps(whiten):
    # Five directions for a sample of five: the last has no variance, but that of rounding.
    data = RNG.random((5, 6))
    pca = PCA(5, whiten=whiten).fit(data)
    module = as_autoencoder(pca)
    z = module.encode(torch.tensor(data))
    np.testing.assert_allclose(z.numpy()[:, :4], pca.transform(data)[:, :4], atol=1e-9)
    np.testing.assert_allclose(module.decode(z).numpy(), data, atol=1e-8)


@pytest.mark.parametrize(
    "make", [lambda: PCA(2).fit(X), autoencoder, Net, lambda: FrozenEstimator(autoencoder())]
)
def test_gradients_reach_the_codes(make):
    latent = LatentSpace(make())
    z = latent.encode(torch.tensor(X)).requires_grad_()
    total = latent.decode(z, 4).square().sum()
    (gradient,) = torch.autograd.grad(total, z)
    flat = z.detach().clone()
    flat.view(-1)[3] += 1e-2
    slope = (latent.decode(flat, 4).square().sum() - total.detach()) / 1e-2
    assert gradient.view(-1)[3].item() == pytest.approx(slope.item(), rel=0.1, abs=0.02)


def test_what_has_no_gradient():
    class Own(PCA):
        def transform(self, X):
            return super().transform(X) + 1

    for thing in (Double(), PCA(2), Own(2).fit(X), torch.nn.Linear(4, 4), Autoencoder(), None):
        assert as_autoencoder(thing) is None
    decoded = LatentSpace(Double()).decode(torch.ones(3, 4, requires_grad=True), 4)
    assert not decoded.requires_grad


def test_the_mode_of_a_module_is_left_as_it_was():
    module = Net().train()
    latent = LatentSpace(module)
    x = torch.tensor(X)
    torch.testing.assert_close(latent.encode(x), latent.encode(x))  # without dropout
    assert module.training and module.dropout.training


def test_bounds_cut_arrays_and_tensors():
    low = np.array([0.0, 0.2, 0.0, 0.0])
    latent = LatentSpace(Double(), (low, 0.5))
    assert latent.decoded(2 * X, 4).min(axis=0)[1] >= 0.2 and latent.decoded(2 * X, 4).max() == 0.5
    torch.testing.assert_close(
        latent.decode(torch.tensor(2 * X), 4), torch.tensor(np.clip(X, low, 0.5)).float()
    )


def test_codes_of_named_columns_without_a_warning():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    for codes in (PCA(2).fit(frame), Autoencoder(2, max_epochs=1).fit(frame)):
        LatentSpace(codes).check_rows(X)


class Words(Double):
    def encode(self, X):
        return np.full((len(X), 1), "a")


class Bad(torch.nn.Module):
    """A module whose codes are right, and whose points are not."""

    def __init__(self, decoded):
        super().__init__()
        self.decoded = decoded

    def encode(self, x):
        return x

    def decode(self, z):
        return self.decoded(z)


@pytest.mark.parametrize(
    ("thing", "error", "message"),
    [
        (PCA(2), NotFittedError, "PCA instance is not fitted"),
        (Autoencoder(), NotFittedError, "Autoencoder instance is not fitted"),
        (
            PCA(2).fit(X[:, :3]),
            ValueError,
            "Got autoencoder=PCA.*of 4 features, as X has",
        ),
        (Words(), TypeError, "Got an autoencoder whose encode returns type <U1"),
        (Bad(lambda z: z[:, :3]), ValueError, r"decodes to shape \(1, 3\), but expected \(1, 4\)"),
        (Bad(lambda z: z / 0), ValueError, "decode returns NaN or infinity"),
        (Bad(lambda z: (z, z)), TypeError, "decode returns a tuple, but expected a tensor"),
        (
            Bad(torch.nn.Linear(7, 4)),
            ValueError,
            "rows of 4 features. It says: mat1",
        ),
    ],
)
def test_refusals_name_the_autoencoder(thing, error, message):
    with pytest.raises(error, match=message):
        LatentSpace(thing).check_rows(X[:1] + 1)


def test_refusals_of_tensors():
    x = torch.tensor(X) + 1
    with pytest.raises(ValueError, match=r"decodes to shape \(20, 3\), but expected \(20, 4\)"):
        LatentSpace(Bad(lambda z: z[:, :3])).decode(x, 4)
    with pytest.raises(ValueError, match="decode returns NaN or infinity"):
        LatentSpace(Bad(lambda z: z / 0)).decode(x, 4)
    with pytest.raises(TypeError, match="Got autoencoder=3, but expected a fitted object"):
        LatentSpace(3)
