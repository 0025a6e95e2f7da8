"""Networks like those of the papers, as torch modules."""

from itertools import pairwise

from torch import nn

__all__ = ["caffe_lenet", "convolutional", "lenet", "network_in_network", "perceptron"]


def perceptron(*sizes):
    """Return a ReLU perceptron, such as ``perceptron(784, 100, 10)``."""
    layers = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def caffe_lenet(n_classes=10):
    """Return the LeNet of Caffe's MNIST example, for images of shape (1, 28, 28).

    Its only ReLU comes after the first dense layer. Bastani et al. train a LeNet in Caffe, "with
    ReLUs instead of sigmoids", as the documentation of that example puts it: likely this one.
    """
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, n_classes),
    )


def lenet(n_classes=10):
    """Return a LeNet with a ReLU after each hidden layer, for images of shape (1, 28, 28)."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, n_classes),
    )


def convolutional(n_classes=10, *, channels=(8, 16), hidden=50):
    """Return a small convolutional network for images of shape (1, 28, 28)."""
    first, second = channels
    return nn.Sequential(
        nn.Conv2d(1, first, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(49 * second, hidden),
        nn.ReLU(),
        nn.Linear(hidden, n_classes),
    )


def network_in_network(width=96, n_classes=10):
    """Return a network in network (Lin et al. 2014), for images of shape (3, 32, 32).

    With batch norm, without which it does not learn in a few epochs.
    """

    def block(before, kernel, *after):
        layers = []
        for channels in after:
            conv = nn.Conv2d(before, channels, kernel, padding=kernel // 2)
            layers += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
            before, kernel = channels, 1
        return layers

    return nn.Sequential(
        *block(3, 5, width, width, width),
        nn.MaxPool2d(2),
        *block(width, 5, width, width, width),
        nn.AvgPool2d(2),
        *block(width, 3, width, width),
        nn.Conv2d(width, n_classes, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
