"""The grids of "Global Adversarial Robustness Guarantees for Neural Networks", appendix B, and the
modules that they speak of.

`GRIDS` are scikit-learn parameter grids, one value a name, so that `ParameterGrid(GRIDS["B.1"])`
lists every network. The paper's counts (1,000 perceptrons on MNIST and so on) are not the sizes of
its grids; here a grid means all of its combinations. Where the paper is silent, the builders read:

- depth: hidden layers, each followed by its activation; the layer of logits is one more;
- convolutions: stride 1, padded so that images keep their size, each followed by a ReLU;
- pooling: the largest of 2 x 2 pixels, after each convolution of B.2 and B.4, and after the two
  convolutions of each VGG block of B.5, while there are 2 pixels a side;
- filters: as many in all convolutions;
- the removed share and the iterations of B.6 and B.7: those of MagnitudePruning.
"""

from torch import nn

__all__ = ["GRIDS", "SIZES", "build", "n_weights", "strided"]

_ACTIVATIONS = ["relu", "tanh", "sigmoid"]
_MODULES = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}

GRIDS = {
    "B.1": {
        "depth": [1, 2, 3],
        "width": [64, 128, 256, 512],
        "activation": _ACTIVATIONS,
        "lr": [0.05, 0.01, 0.005, 0.001],
        "epochs": [5, 10, 15, 20, 25],
    },
    "B.2": {
        "conv_depth": [1, 2, 3],
        "filters": [5, 10, 20, 30],
        "kernel": [3, 5, 7],
        "depth": [1, 2],
        "width": [128, 256],
        "lr": [0.05, 0.01, 0.005, 0.001],
        "epochs": [3, 6, 9, 12, 15],
    },
    "B.3": {
        "depth": [2, 3, 4],
        "width": [256, 512, 1024],
        "activation": _ACTIVATIONS,
        "lr": [0.01, 0.005, 0.001],
        "epochs": [5, 10, 15, 20, 25],
    },
    "B.4": {
        "conv_depth": [1, 2, 3, 4],
        "filters": [5, 20, 30],
        "kernel": [3, 5, 7],
        "depth": [1, 2],
        "width": [128, 256],
        "lr": [0.0001, 0.001, 0.005],
        "epochs": [3, 6, 9, 12, 15],
    },
    "B.5": {
        "blocks": [1, 2, 3],
        "filters": [24, 48, 64],
        "kernel": [3, 5, 7],
        "depth": [1, 2, 3],
        "width": [128, 256, 512],
        "lr": [0.0001, 0.0005, 0.001, 0.005],
        "epochs": [3, 6, 9, 12, 15],
    },
    "B.6": {
        "depth": [1, 2, 3],
        "width": [128, 256, 512, 1024],
        "activation": _ACTIVATIONS,
        "lr": [0.001],
        "epochs": [5, 10, 15],
        "amount": [0.5, 0.75, 0.9, 0.99],
        "iterations": [1, 2, 5],
    },
    "B.7": {
        "depth": [1, 2, 3, 4],
        "width": [256, 512],
        "activation": _ACTIVATIONS,
        "lr": [0.001],
        "epochs": [5, 10, 15],
        "amount": [0.5, 0.75, 0.9, 0.99],
        "iterations": [1, 2, 5],
    },
    "B.8": {
        "depth": [1, 2, 3],
        "width": [128, 256, 512],
        "activation": _ACTIVATIONS,
        "step_size": [0.01, 0.005, 0.001, 0.0001],
        "num_steps": [10, 15, 20],
        "n_samples": [100, 200, 400, 600],
    },
    # The row of the posterior samples is missing in the copy at hand: `n_samples` is the caller's.
    "B.9": {
        "depth": [1, 2, 3],
        "width": [128, 256, 512],
        "activation": ["relu"],
        "step_size": [0.01, 0.005, 0.001, 0.0001],
        "num_steps": [10, 15, 20],
    },
}
SIZES = {
    "B.1": 720,
    "B.2": 2880,
    "B.3": 405,
    "B.4": 2160,
    "B.5": 4860,
    "B.6": 1296,
    "B.7": 864,
    "B.8": 1296,
    "B.9": 108,
}


def build(input_shape, n_classes=10, *, depth, width, activation="relu", **convolutions):
    """Return a module from images to logits.

    Parameters
    ----------
    input_shape : tuple of three int
        Channels, height and width.
    n_classes : int, default=10
    depth, width, activation : int, int, str
        Of the fully connected hidden layers.
    **convolutions : dict
        None for a perceptron; `conv_depth`, `filters` and `kernel` for a CNN; `blocks`, `filters`
        and `kernel` for VGG blocks.
    """
    layers, shape = [], tuple(input_shape)
    if convolutions:
        layers, shape = _convolutional(shape, **convolutions)
    n = shape[0] * shape[1] * shape[2]
    layers.append(nn.Flatten())
    for _ in range(depth):
        layers += [nn.Linear(n, width), _MODULES[activation]()]
        n = width
    return nn.Sequential(*layers, nn.Linear(n, n_classes))


def _convolutional(shape, *, filters, kernel, conv_depth=None, blocks=None):
    """Return layers, and the shape of what they return."""
    each = 1 if blocks is None else 2
    channels, height, width = shape
    layers = []
    for _ in range(conv_depth if blocks is None else blocks):
        for _ in range(each):
            layers += [nn.Conv2d(channels, filters, kernel, padding="same"), nn.ReLU()]
            channels = filters
        if min(height, width) >= 2:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    return layers, (channels, height, width)


def n_weights(module):
    """Return the number of parameters of a module: its capacity."""
    return sum(parameter.numel() for parameter in module.parameters())


def strided(input_shape, n_classes=10):
    """Return the CNN of figure 1, whose architecture the paper does not give.

    One convolution with stride 2 and no pooling, so that a complete verifier decides most images.
    """
    channels, height, width = input_shape
    n = 4 * ((height - 1) // 2) * ((width - 1) // 2)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(n, n_classes)
    )
