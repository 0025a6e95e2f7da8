"""Any supported estimator as one torch network, from raw input rows to class logits."""

from skrobust.networks import _pipeline, _sklearn, _torch  # noqa: F401  (register themselves)
from skrobust.networks._base import Network, as_network
from skrobust.networks._black_box import BlackBox, as_model

__all__ = ["BlackBox", "Network", "as_model", "as_network"]
