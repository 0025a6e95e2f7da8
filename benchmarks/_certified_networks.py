"""What `certified.py` trains: each configuration is data, a module, a regime and its settings."""

from dataclasses import dataclass, field

import torch
from _architectures import convolutional

from skrobust import RobustClassifier
from skrobust.networks import LinfDistanceNetwork
from skrobust.properties import ClassificationRobustness
from skrobust.training import CertifiedTraining, LinfDistanceTraining

__all__ = ["AIMS", "CANDIDATES", "CONFIGURATIONS", "EPSILON", "LONG"]

EPSILON = 0.1
SIDE = 28


@dataclass(frozen=True)
class Configuration:
    """A network to train, without the data.

    Parameters
    ----------
    data : {"mnist", "fashion"}
    module : callable or None
        Makes the untrained module; None is 784-30-10, as the classifier makes it.
    training : TrainingRegime
    epochs : int
    lr : float
    batch_size : int, default=128
    refit : bool, default=True
        Whether the network that is tested is trained anew on all of the training images; where
        that takes long, it is the one that was validated.
    others : dict
        More parameters of the classifier.
    """

    data: str
    module: object
    training: object
    epochs: int
    lr: float
    batch_size: int = 128
    refit: bool = True
    others: dict = field(default_factory=dict)

    def model(self, epochs=None):
        """Return the classifier, not trained, of these or other epochs."""
        epochs = self.epochs if epochs is None else epochs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = None if self.module is None else self.module()
        return RobustClassifier(
            module,
            hidden_layer_sizes=(30,),
            property=ClassificationRobustness(EPSILON),
            training=self.training,
            max_epochs=epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            random_state=0,
            **self.others,
        )


def small_cnn():
    return convolutional(channels=(16, 32), hidden=100)


def distances(*hidden):
    # Mean and deviation of the pixels of the training images.
    return lambda: LinfDistanceNetwork(
        SIDE**2, 10, hidden_layer_sizes=hidden, center=0.286, spread=0.35, random_state=0
    )


def perceptron(epochs=30, *, lr=0.005, batch_size=128, **settings):
    """Return 784-30-10; with the defaults of the classifier and the regime."""
    regime = CertifiedTraining(**settings)
    return Configuration("fashion", None, regime, epochs, lr, batch_size)


def cnn(data, clean_weight, epochs=36, lr=0.002, **settings):
    regime = CertifiedTraining(clean_weight=clean_weight, **settings)
    return Configuration(data, small_cnn, regime, epochs, lr, refit=False, others=IMAGES)


def distance_net(epochs, hidden=(256,), lr=0.03, **settings):
    regime = LinfDistanceTraining(**settings)
    return Configuration("fashion", distances(*hidden), regime, epochs, lr, others=DISTANCES)


STEPS = {"lr": 0.003, "batch_size": 64}
IMAGES = {"input_shape": (1, SIDE, SIDE)}
DISTANCES = {"optimizer_params": {"betas": (0.9, 0.99), "eps": 1e-10}}

CONFIGURATIONS = {
    "defaults": perceptron(),
    "perceptron": perceptron(40, **STEPS),
    "cnn": cnn("fashion", 0.5),
    "cnn-accurate": cnn("fashion", 0.9, epochs=16, ramp_epochs=6),
    "mnist": cnn("mnist", 0.5, epochs=20, ramp_epochs=10, ramp="smooth"),
    "distances": distance_net(30, p_end=64.0, final=0.2),
}
AIMS = {
    "defaults": "60 % at 79 %",
    "perceptron": "64 % at 80 %",
    "cnn": "67 % at 80 %",
    "cnn-accurate": "50 % at 85 %",
    "mnist": "96 % at 98.3 %",
    "distances": "70 % at 78 %",
}
LONG = ("cnn", "distances")  # training takes about ten core-minutes and more
OTHERS = {
    "perceptron": {
        "l1 of 1e-5": perceptron(40, **STEPS, l1=1e-5),
        "initialization and regularization of Shi et al.": perceptron(
            40, **STEPS, initialization="ibp", ramp_regularization=0.5
        ),
    },
    "mnist": {
        "44 epochs": cnn("mnist", 0.5, epochs=44, ramp_epochs=22, ramp="smooth"),
        "clean weight 0.4, lr 0.004": cnn(
            "mnist", 0.4, epochs=20, lr=0.004, ramp_epochs=10, ramp="smooth"
        ),
        "linear ramp of 5 of 12 epochs": cnn("mnist", 0.5, epochs=12, ramp_epochs=5),
    },
    "distances": {
        "128 neurons, p to 64": distance_net(16, (128,), p_end=64.0, final=0.2),
        "the same, p to 128": distance_net(16, (128,), p_end=128.0),
        "the same, lr 0.01": distance_net(16, (128,), 0.01, p_end=128.0),
    },
}
CANDIDATES = {
    name: {"chosen": chosen} | OTHERS.get(name, {}) for name, chosen in CONFIGURATIONS.items()
}
