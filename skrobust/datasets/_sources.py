"""The data sets: where each is found, and what must be found there."""

import math
from dataclasses import dataclass, field

__all__ = ["CIFAR10", "FASHION_MNIST", "GTSRB", "MNIST", "SVHN", "Source"]


@dataclass(frozen=True)
class Source:
    """Where one data set is found, and what must be found there.

    Parameters
    ----------
    title : str
    description : str
    files : tuple of str
        Names of npz files, the first that exists is read.
    image_shape : tuple of int
        Shape of one image in a file: (height, width) or (height, width, channels).
    target_names : tuple of str
    openml : str or None
        Name at OpenML, version 1, where each row is one image, channels first.
    n_train : int or None
        How many of the rows at OpenML, from the first, are the training split.
    class_ids : tuple of int or None
        What the array ``class_ids`` must hold in files that have one.
    page : str or None
        Address of the folder that files are published in, as ``published`` says.
    published : dict of str to (str, str)
        For each split the name of its published file, and the MD5 sum of that.
    """

    title: str
    description: str
    files: tuple
    image_shape: tuple
    target_names: tuple
    openml: str | None = None
    n_train: int | None = None
    class_ids: tuple | None = None
    page: str | None = None
    published: dict = field(default_factory=dict)

    @property
    def n_features(self):
        return math.prod(self.image_shape)

    @property
    def input_shape(self):
        """The shape (channels, height, width) of one row of the data."""
        height, width, *channels = self.image_shape
        return (*(channels or [1]), height, width)


MNIST = Source(
    title="MNIST",
    description="Handwritten digits, 28 x 28 grayscale: 60000 to train on, 10000 to test on.",
    files=("mnist.npz",),
    image_shape=(28, 28),
    target_names=tuple("0123456789"),
    openml="mnist_784",
    n_train=60_000,
)

FASHION_MNIST = Source(
    title="Fashion-MNIST",
    description="Pieces of clothing, 28 x 28 grayscale: 60000 to train on, 10000 to test on.",
    files=("fashion_mnist.npz",),
    image_shape=(28, 28),
    target_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    openml="Fashion-MNIST",
    n_train=60_000,
)

CIFAR10 = Source(
    title="CIFAR-10",
    description="Small photographs, 32 x 32 in color: 50000 to train on, 10000 to test on.",
    files=("cifar10.npz", "cifar10_subset.npz"),
    image_shape=(32, 32, 3),
    target_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    openml="CIFAR_10",
    n_train=50_000,
)

GTSRB = Source(
    title="GTSRB, ten classes",
    description=(
        "German traffic signs, 48 x 48 grayscale: ten classes of the German Traffic Sign\n"
        "Recognition Benchmark, renumbered from 0 to 9. They are those of Casadio et al.:\n"
        "12660 images to train on, 4170 to test on, from 240 to 2160 a class in training."
    ),
    files=("gtsrb10.npz",),
    image_shape=(48, 48),
    target_names=(
        "Speed limit 60",
        "Speed limit 80",
        "End of speed limit 80",
        "Right of way at the next crossing",
        "Priority road",
        "Yield",
        "Stop",
        "End of all limits",
        "Keep right",
        "Keep left",
    ),
    class_ids=(3, 5, 6, 11, 12, 13, 14, 32, 38, 39),
)

SVHN = Source(
    title="SVHN, cropped digits",
    description=(
        "Street View House Numbers, 32 x 32 in color, with the digit to name in the middle:\n"
        "73257 to train on, 26032 to test on."
    ),
    files=("svhn.npz",),
    image_shape=(32, 32, 3),
    target_names=tuple("0123456789"),
    page="http://ufldl.stanford.edu/housenumbers",
    published={
        "train": ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        "test": ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    },
)
