"""Image data sets with pixels in [0, 1], one image a row.

`load_digits` needs nothing but scikit-learn. The others read one npz file of integer pixels
from 0 to 255 with the arrays ``X_train``, ``y_train``, ``X_test`` and ``y_test``, found in
`data_home`, in the folder named by the environment variable ``SKROBUST_DATA``, or in
scikit-learn's own data folder; where there is none, they download from OpenML if they can.
`fetch_mnist_c` reads the corrupted digits of MNIST-C, from its published folder, and `fetch_svhn`
also the published files of SVHN.
"""

from skrobust.datasets._loaders import (
    fetch_cifar10,
    fetch_fashion_mnist,
    fetch_gtsrb,
    fetch_mnist,
    load_digits,
)
from skrobust.datasets._mnist_c import fetch_mnist_c
from skrobust.datasets._svhn import fetch_svhn

__all__ = [
    "fetch_cifar10",
    "fetch_fashion_mnist",
    "fetch_gtsrb",
    "fetch_mnist",
    "fetch_mnist_c",
    "fetch_svhn",
    "load_digits",
]
