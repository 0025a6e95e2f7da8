"""What is said of the data sets agrees with itself."""

import pytest

from skrobust.datasets._sources import CIFAR10, FASHION_MNIST, GTSRB, MNIST, SVHN


@pytest.mark.parametrize("source", [MNIST, FASHION_MNIST, CIFAR10, GTSRB, SVHN])
def test_shapes_and_classes(source):
    channels, height, width = source.input_shape
    assert (height, width) == source.image_shape[:2]
    assert channels == (source.image_shape[2] if len(source.image_shape) == 3 else 1)
    assert source.n_features == channels * height * width
    assert len(set(source.target_names)) == 10
    assert (source.openml is None) == (source.n_train is None)


def test_the_ten_signs_are_named_in_order():
    assert len(GTSRB.class_ids) == len(GTSRB.target_names)
    # As in the benchmark's own list of classes, and as the authors of Casadio et al. chose them.
    assert dict(zip(GTSRB.class_ids, GTSRB.target_names, strict=True)) == {
        3: "Speed limit 60",
        5: "Speed limit 80",
        6: "End of speed limit 80",
        11: "Right of way at the next crossing",
        12: "Priority road",
        13: "Yield",
        14: "Stop",
        32: "End of all limits",
        38: "Keep right",
        39: "Keep left",
    }
    assert list(GTSRB.class_ids) == sorted(GTSRB.class_ids)
