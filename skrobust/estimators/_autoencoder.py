"""An autoencoder as a scikit-learn transformer."""

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from skrobust._validation import (
    call_of_user,
    check_bounds,
    check_choice,
    check_integer,
    check_real,
    check_seed,
    check_within_bounds,
    expected,
)
from skrobust.estimators._autoencoder_net import (
    AutoencoderNet,
    EncoderDecoder,
    default_decoder,
    default_encoder,
)
from skrobust.estimators._base import plain_array
from skrobust.estimators._modules import check_float32
from skrobust.estimators._parameters import check_net_parameters, hidden_sizes, row_shape
from skrobust.estimators._random import Generators, OwnDraws
from skrobust.exceptions import DivergedTrainingError
from skrobust.networks import as_autoencoder, copied

__all__ = ["Autoencoder"]

_ROWS_AT_ONCE = 1024


class Autoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Codes of few numbers from which the data can be reconstructed, plain or Wasserstein.

    The plain loss is the squared error of the reconstruction, summed over the features and
    averaged over the samples. The Wasserstein autoencoder of Tolstikhin et al. adds `weight` x
    how far the codes of a batch are from as many standard normal points, by the maximum mean
    discrepancy:

    .. math:: \frac{1}{n} \sum_i \|x_i - \mathrm{dec}(\mathrm{enc}(x_i))\|_2^2
              + \lambda \, \mathrm{MMD}^2(\mathrm{enc}(X), Z)

    with the kernel :math:`k(a, b) = C / (C + \|a - b\|^2)`, C twice the number of components,
    without bias. So noise of a given scale means as much in the codes of one data set as in those
    of another, and codes drawn from the prior decode to something like the data.

    Parameters
    ----------
    n_components : int, default=10
        Numbers of a code.
    hidden_layer_sizes : int, sequence of int, or None, default=None
        Hidden units of the encoder, from the input to the code; the decoder has them in reverse.
        With `input_shape`, the channels of its convolutions, each of stride 2. None is (100,), or
        with `input_shape` (16, 32).
    encoder, decoder : None, torch.nn.Module, or callable that returns one, default=None
        In place of the perceptrons or convolutions: from inputs of `input_shape` (rows, without
        one) to codes, and from codes to inputs. Copied, as in `RobustClassifier`.
    input_shape : tuple (channels, height, width) or None, default=None
        Shape to give each row of `X` before the encoder sees it.
    loss : {"plain", "wasserstein"}, default="plain"
        What is minimized.
    weight : float, default=10.0
        Of the discrepancy, for ``loss="wasserstein"`` (the paper's :math:`\lambda`; the default is
        its value for MNIST).
    bounds : pair of floats or of array-likes, or None, default=None
        Range of the data, such as (0, 1). The decoder then ends in a sigmoid from the one to the
        other, also one of your own, so that what it returns lies in it. None leaves the decoder
        as it is.
    max_epochs : int, default=50
        Passes over the data.
    batch_size : int, default=128
        Samples of a step.
    lr : float, default=0.005
        Learning rate.
    optimizer : type, default=torch.optim.Adam
        Optimizer class.
    optimizer_params : dict or None, default=None
        Arguments for `optimizer`.
    callbacks : list or None, default=None
        Further skorch callbacks.
    device : str, default="cpu"
        Torch device.
    random_state : int, RandomState instance or None, default=None
        Makes `fit` repeatable, in threads as well, as that of `RobustClassifier`.
    verbose : int, default=0
        Whether skorch prints each epoch.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Only where `X` has string column names.
    net_ : skorch.NeuralNet
        The trained net; its module has ``encode`` and ``decode``, from tensors to tensors. Its
        ``stopped_midway`` is True where training ended within an epoch, by an interrupt.
    history_ : skorch.history.History
        What each epoch and batch recorded.

    Notes
    -----
    Codes and reconstructions are float32, in which the network computes.

    References
    ----------
    Tolstikhin, Bousquet, Gelly, Schoelkopf, "Wasserstein auto-encoders", ICLR 2018, algorithm 2
    (WAE-MMD) and section 4.

    Examples
    --------
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.estimators import Autoencoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = Autoencoder(
    ...     8, loss="wasserstein", bounds=(0, 1), max_epochs=20, random_state=0
    ... ).fit(X[:1000])
    >>> codes = model.transform(X[1000:])
    >>> codes.shape
    (797, 8)
    >>> model.inverse_transform(codes).shape
    (797, 64)
    >>> -0.05 < model.score(X[1000:]) < 0
    True
    """

    def __init__(
        self,
        n_components=10,
        *,
        hidden_layer_sizes=None,
        encoder=None,
        decoder=None,
        input_shape=None,
        loss="plain",
        weight=10.0,
        bounds=None,
        max_epochs=50,
        batch_size=128,
        lr=0.005,
        optimizer=torch.optim.Adam,
        optimizer_params=None,
        callbacks=None,
        device="cpu",
        random_state=None,
        verbose=0,
    ):
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.encoder = encoder
        self.decoder = decoder
        self.input_shape = input_shape
        self.loss = loss
        self.weight = weight
        self.bounds = bounds
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Train from the start.

        An interrupt by the keyboard ends training, as in skorch: what was learned is kept.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data is not valid; the message names it.
        DivergedTrainingError
            If the loss becomes NaN or infinite.
        """
        X = validate_data(self, plain_array(X), dtype=np.float32)
        self._check(X)
        random = check_seed(self.random_state)
        with OwnDraws(Generators(random.randint(2**31 - 1))):
            module = self._module(X).to(self.device)
            net = AutoencoderNet(
                module,
                weight=float(self.weight) if self.loss == "wasserstein" else 0.0,
                criterion=torch.nn.MSELoss,  # skorch asks for one; the net has losses of its own
                optimizer=self.optimizer,
                lr=float(self.lr),
                batch_size=int(self.batch_size),
                train_split=None,
                callbacks=self.callbacks,
                device=self.device,
                verbose=self.verbose,
                **{f"optimizer__{k}": v for k, v in (self.optimizer_params or {}).items()},
            )
            net.initialize()
        rows = torch.from_numpy(np.require(X, requirements=["C", "W"]))
        net.train(rows, random.randint(2**31 - 1), int(self.max_epochs))
        trained = net.module_.eval()
        with torch.no_grad():
            x = rows[: self.batch_size].to(self.device)
            is_finite = torch.isfinite(trained.decode(trained.encode(x))).all()
        if not is_finite:
            raise DivergedTrainingError(
                "The weights or outputs became NaN or infinite in the last step. Try a smaller "
                "lr, or scaled inputs."
            )
        self.net_ = net
        self._n_features_out = int(self.n_components)  # which names the features that come out
        return self

    def transform(self, X):
        """Return the codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        float32 ndarray of shape (n_samples, n_components)
        """
        return self._in_parts("encode", self._rows(X))

    def inverse_transform(self, X):
        """Return what codes stand for.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        float32 ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        codes = check_array(plain_array(X), dtype=np.float32)
        if codes.shape[1] != self._n_features_out:
            expectation = f"codes of shape (n_samples, {self._n_features_out})"
            raise ValueError(expected("X", codes, expectation))
        return self._in_parts("decode", codes)

    def score(self, X, y=None):
        """Return minus the mean squared error of the reconstruction, over samples and features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : None
            Ignored.

        Returns
        -------
        float
            At most 0, the larger the better.
        """
        rows = self._rows(X)
        error = self._reconstructed(rows).astype(np.float64) - rows
        return -float(np.square(error).mean())

    @property
    def history_(self):
        """What each epoch and batch recorded (skorch's history)."""
        check_is_fitted(self)
        return self.net_.history

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _check(self, X):
        check_integer("n_components", self.n_components, low=1)
        check_choice("loss", self.loss, ("plain", "wasserstein"))
        check_real("weight", self.weight, low=0, high=float(np.finfo(np.float32).max))
        check_net_parameters(self)
        for name in ("encoder", "decoder"):
            value = getattr(self, name)
            if not (value is None or callable(value)):
                expectation = "None, a torch.nn.Module, or a callable that returns one"
                raise TypeError(expected(name, value, expectation))
        bounds = check_bounds(self.bounds, X.shape[1])
        if bounds is not None and not np.isfinite(bounds[0] + bounds[1]).all():
            raise ValueError(expected("bounds", self.bounds, "None, or a pair of finite ends"))
        check_within_bounds(X, bounds)
        if self.loss == "wasserstein":
            # The discrepancy compares points of a batch with one another.
            check_integer("batch_size", self.batch_size, low=2)
            if len(X) < 2:
                raise ValueError(
                    "Got X with 1 sample, but expected at least 2, with loss='wasserstein'."
                )

    def _module(self, X):
        n_features, width = X.shape[1], int(self.n_components)
        shape = None if self.input_shape is None else row_shape(self.input_shape, n_features)
        is_own = self.encoder is not None and self.decoder is not None
        if shape is not None and len(shape) != 3 and not is_own:
            expectation = "(channels, height, width), or an encoder and a decoder of your own"
            raise ValueError(expected("input_shape", self.input_shape, expectation))
        sizes = self.hidden_layer_sizes
        sizes = hidden_sizes(((100,) if shape is None else (16, 32)) if sizes is None else sizes)
        module = EncoderDecoder(
            _part("encoder", self.encoder, default_encoder, width, sizes, n_features, shape),
            _part("decoder", self.decoder, default_decoder, width, sizes, n_features, shape),
            shape,
            check_bounds(self.bounds, n_features),
        ).eval()
        check_float32(module)
        rows = torch.tensor(X[:2])
        with torch.no_grad():
            codes = call_of_user("encoder", module.encode, rows)
            _check_shape("encoder", codes, (len(rows), width), "n_components")
            decoded = call_of_user("decoder", module.decode, codes)
            _check_shape("decoder", decoded, rows.shape, "the features of X")
        return module

    def _rows(self, X):
        check_is_fitted(self)
        return validate_data(self, plain_array(X), dtype=np.float32, reset=False)

    def _reconstructed(self, rows):
        return self._in_parts("forward", rows)

    def _in_parts(self, name, rows):
        method = getattr(self.net_.module_, name)
        rows = torch.from_numpy(np.require(rows, requirements=["C", "W"]))
        with torch.no_grad():
            parts = [method(part.to(self.net_.device)) for part in rows.split(_ROWS_AT_ONCE)]
        return torch.cat(parts).cpu().numpy()


@as_autoencoder.register(Autoencoder)
def _module_of(model):
    return model.net_.module_ if hasattr(model, "net_") else None


def _part(name, given, default, *shape):
    """Return the default encoder or decoder, a copy of a given one, or one that is made."""
    if given is None:
        return default(*shape)
    module = given if isinstance(given, torch.nn.Module) else call_of_user(name, given)
    if not isinstance(module, torch.nn.Module):
        raise TypeError(expected(name, given, "a callable that returns a torch.nn.Module"))
    return copied(module)


def _check_shape(name, returned, shape, what):
    if not isinstance(returned, torch.Tensor) or returned.shape != shape:
        got = tuple(returned.shape) if isinstance(returned, torch.Tensor) else type(returned)
        raise ValueError(
            f"Got {name} that returns {got} for {shape[0]} rows, but expected {tuple(shape)}, "
            f"the second of which is {what}."
        )
