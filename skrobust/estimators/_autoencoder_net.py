"""The modules of an autoencoder, the divergence of its codes, and the skorch net inside."""

from itertools import pairwise

import numpy as np
import torch
from skorch import NeuralNet

from skrobust.estimators._batches import Batch, InOrder, Samples, shuffled_parts
from skrobust.estimators._modules import perceptron
from skrobust.estimators._random import Generators, Watch, is_known
from skrobust.estimators._skorch import NamesOptimizer, diverged

__all__ = []


# ---- modules --------------------------------------------------------------------------------


class EncoderDecoder(torch.nn.Module):
    """From rows to codes, and from codes to rows.

    Parameters
    ----------
    encoder : torch.nn.Module
        From inputs of `input_shape`, or rows where it is None, to codes.
    decoder : torch.nn.Module
        From codes to inputs of any shape.
    input_shape : tuple of int or None
    bounds : pair of floats or of arrays, or None
        Range of the decoded rows: what the decoder returns goes through a sigmoid. None leaves it.
    """

    def __init__(self, encoder, decoder, input_shape=None, bounds=None):
        super().__init__()
        shaped = [] if input_shape is None else [torch.nn.Unflatten(1, input_shape)]
        self.encode = torch.nn.Sequential(*shaped, encoder, torch.nn.Flatten())
        ending = [] if bounds is None else [Within(*bounds)]
        self.decode = torch.nn.Sequential(decoder, torch.nn.Flatten(), *ending)

    def forward(self, x):
        return self.decode(self.encode(x))


class Within(torch.nn.Module):
    """A sigmoid from low to high."""

    def __init__(self, low, high):
        super().__init__()
        low, high = (torch.as_tensor(np.asarray(end, dtype=np.float32)) for end in (low, high))
        self.register_buffer("low", low)
        self.register_buffer("width", high - low)

    def forward(self, x):
        return torch.addcmul(self.low, self.width, torch.sigmoid(x))


def default_encoder(n_components, sizes, n_features, input_shape):
    """Return a perceptron, or of images a network of convolutions of stride 2."""
    if input_shape is None:
        return perceptron(n_features, sizes, n_components)
    layers = []
    for before, after in pairwise([input_shape[0], *sizes]):
        layers += [torch.nn.Conv2d(before, after, 3, stride=2, padding=1), torch.nn.ReLU()]
    n_last = int(np.prod(_image_shapes(input_shape, sizes)[-1]))
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(n_last, n_components))


def default_decoder(n_components, sizes, n_features, input_shape):
    """Return the layers of `default_encoder` the other way round."""
    if input_shape is None:
        return perceptron(n_components, sizes[::-1], n_features)
    shapes = _image_shapes(input_shape, sizes)[::-1]
    layers = [torch.nn.Linear(n_components, int(np.prod(shapes[0]))), torch.nn.ReLU()]
    layers.append(torch.nn.Unflatten(1, shapes[0]))
    for before, after in pairwise(shapes):
        # Of the two sizes that a stride of 2 takes to the same one, that which was there.
        extra = [size - (2 * half - 1) for half, size in zip(before[1:], after[1:], strict=True)]
        layers.append(
            torch.nn.ConvTranspose2d(
                before[0], after[0], 3, stride=2, padding=1, output_padding=extra
            )
        )
        layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers[:-1])


def _image_shapes(input_shape, channels):
    """Return the shapes of an image before and after each convolution of stride 2."""
    shapes = [tuple(input_shape)]
    for n_channels in channels:
        _, height, width = shapes[-1]
        shapes.append((n_channels, (height + 1) // 2, (width + 1) // 2))
    return shapes


# ---- losses ---------------------------------------------------------------------------------


def squared_error(decoded, x):
    """Return the squared L2 distance of each row, averaged over the rows."""
    return (decoded - x).square().sum(dim=1).mean()


def discrepancy(codes, prior):
    r"""Return the squared maximum mean discrepancy of two samples, without bias.

    The kernel is the inverse multiquadric :math:`C / (C + \|a - b\|^2)`, where C is the expected
    squared distance of two standard normal points: twice their number of entries.

    Parameters
    ----------
    codes, prior : Tensor of shape (n, n_components)
        Of at least two rows.

    Returns
    -------
    Tensor of shape ()
        Zero on average where both samples are of one distribution, so at times below zero.
    """
    n, width = codes.shape
    within = sum(
        (_kernel(part, part, 2.0 * width).sum() - n) / (n * (n - 1)) for part in (codes, prior)
    )
    return within - 2 * _kernel(codes, prior, 2.0 * width).mean()


def _kernel(a, b, scale):
    squares = a.square().sum(dim=1).unsqueeze(1) + b.square().sum(dim=1) - 2 * a @ b.T
    return scale / (scale + squares.clamp(min=0.0))


# ---- the net --------------------------------------------------------------------------------


class AutoencoderNet(NamesOptimizer, NeuralNet):
    """A skorch net that learns to reconstruct rows, with codes near a prior if that has weight."""

    generators = order = watch = None  # while it trains
    stopped_midway = False  # whether training ended within an epoch, by an interrupt

    def __init__(self, *args, weight, **kwargs):
        super().__init__(*args, **kwargs)
        self.weight = weight

    def train(self, X, seed, n_epochs):
        """Train on rows for some epochs; all random numbers follow from the seed."""
        prior, order, draws = (int(s) for s in np.random.SeedSequence(seed).generate_state(3))
        self.generators = Generators(prior)
        self.order = torch.Generator().manual_seed(order)
        self.watch = Watch(Generators(draws), is_known(self.module_))
        try:
            self.partial_fit(X, None, epochs=n_epochs)
        finally:
            self.generators = self.order = self.watch = None

    def __getstate__(self):
        # Also where skorch's Checkpoint pickles, in the middle of training.
        state = super().__getstate__()
        return state | dict.fromkeys(("generators", "order", "watch"))

    def get_split_datasets(self, X, y=None, **split_params):
        return Samples(X, torch.zeros(len(X))), None

    def get_iterator(self, dataset, training=False):
        if not training:
            return InOrder(dataset, self.batch_size)
        parts = shuffled_parts(len(dataset), self.batch_size, self.order)
        return [Batch((dataset.X[part], dataset.y[part])) for part in parts]

    def run_single_epoch(self, *args, **kwargs):
        # Callbacks that end training raise the same KeyboardInterrupt, but between epochs.
        self.stopped_midway = True
        super().run_single_epoch(*args, **kwargs)
        self.stopped_midway = False

    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        x = batch[0].to(self.device)
        n_batches = len(self.history[-1]["batches"])
        with self.watch.step(is_first=n_batches == 1):
            codes = self.module_.encode(x)
            decoded = self.module_.decode(codes)
            loss = squared_error(decoded, x)
            if self.weight:
                generator = self.generators.on(codes.device)
                prior = torch.randn(codes.shape, generator=generator, device=codes.device)
                loss = loss + self.weight * discrepancy(codes, prior)
            if not torch.isfinite(loss):
                where = f"epoch {len(self.history)}, batch {n_batches}"
                raise diverged(loss, where, "a smaller weight")
            loss.backward()
        return {"loss": loss, "y_pred": decoded.detach()}
