"""Any supported estimator as one torch network, from raw input rows to class logits."""

from skrobust.networks import _committees, _pipeline, _sklearn, _torch  # noqa: F401  (register)
from skrobust.networks._affine import affine, affine_map
from skrobust.networks._base import Model, Network, as_network
from skrobust.networks._beside import with_input_rows as with_input_rows
from skrobust.networks._black_box import BlackBox, as_model
from skrobust.networks._columnwise import ColumnwiseSteps
from skrobust.networks._frames import frame_like as frame_like
from skrobust.networks._frames import import_pandas as import_pandas
from skrobust.networks._latent import LatentSpace, as_autoencoder
from skrobust.networks._linf_distance import LinfDistanceLayer, LinfDistanceNetwork
from skrobust.networks._modules import (
    check_logits,
    check_precision,
    copied,
    dtype_and_device,
    evaluation_mode,
    outputs_of,
    uncompiled,
)
from skrobust.networks._onnx import import_onnx, load_onnx
from skrobust.networks._rows import check_rows
from skrobust.networks._units import Units as Units
from skrobust.networks._units import check_scale as check_scale

__all__ = [
    "BlackBox",
    "ColumnwiseSteps",
    "LatentSpace",
    "LinfDistanceLayer",
    "LinfDistanceNetwork",
    "Model",
    "Network",
    "affine",
    "affine_map",
    "as_autoencoder",
    "as_model",
    "as_network",
    "check_logits",
    "check_precision",
    "check_rows",
    "copied",
    "dtype_and_device",
    "evaluation_mode",
    "import_onnx",
    "load_onnx",
    "outputs_of",
    "uncompiled",
]
