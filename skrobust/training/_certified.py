"""Training on bounds of the outputs, so that verifiers can prove what was learned."""

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from skrobust._validation import check_choice, check_integer, check_real
from skrobust.bounds import relu_lines
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.training._base import PropertyRegime

__all__ = ["CertifiedTraining"]


class CertifiedTraining(PropertyRegime):
    r"""Minimise the loss of the worst outputs that bounds allow (IBP or CROWN-IBP training).

    Intervals of the pixels are propagated through the module, with gradients, to lower bounds
    of the property's rows. With :math:`l_j` for these, the loss is
    :math:`\log(1 + \sum_j e^{-l_j})`. For classification that is the cross-entropy of the worst
    case. Both the radius and the weight of that loss grow over the first epochs.

    Parameters
    ----------
    method : {"ibp", "crown-ibp"}, default="ibp"
        "crown-ibp" mixes the bounds by intervals with those by lines below and above each unit
        (CROWN, on the same intervals), whose share falls from 1 to 0 while the radius grows. It
        is slower in these epochs, about by the number of rows, and takes modules whose only
        nonlinear layers are ReLU and leaky ReLU.
    ramp_epochs : int, default=10
        Epochs over which the radius grows to epsilon, and the weight of the loss at the inputs
        themselves falls from 1 to `clean_weight`. About a third of all epochs is a good choice.
    clean_weight : float, default=0.5
        Weight, in [0, 1], of the loss at the inputs themselves after that. A larger one is more
        accurate, and less can be proved.
    property : RobustnessProperty or None, default=None
        What is proved, in the L-infinity norm; the classifier's own property if None. Rows that
        depend on the distance (Lipschitz robustness) have no bound of this kind.

    Notes
    -----
    The module may consist of linear and convolutional layers, batch norm, pooling, monotone
    activations, views, sums, and products with constants. `Bounds("ibp")` proves what this
    trains for.

    References
    ----------
    Gowal et al., "On the effectiveness of interval bound propagation for training verifiably
    robust models", 2018. Zhang et al., "Towards stable and efficient training of verifiably
    robust neural networks", ICLR 2020 (CROWN-IBP).
    """

    def __init__(self, method="ibp", *, ramp_epochs=10, clean_weight=0.5, property=None):
        self.method = method
        self.ramp_epochs = ramp_epochs
        self.clean_weight = clean_weight
        self.property = property

    def check(self, property, X, n_classes=2):
        check_choice("method", self.method, ("ibp", "crown-ibp"))
        check_integer("ramp_epochs", self.ramp_epochs)
        check_real("clean_weight", self.clean_weight, low=0, high=1)
        super().check(property, X, n_classes)
        trained_for = self.trained_property(property)
        if trained_for.norm != "linf":
            raise UnsupportedPropertyError(
                f"Got norm={trained_for.norm!r}, but CertifiedTraining expects norm='linf'."
            )
        # Rows that do not fit the number of classes are seen before training.
        _rows(trained_for.trial(n_classes), trained_for)

    def loss(self, state, step):
        property = self.trained_property(step.property)
        ramp = step.ramp(self.ramp_epochs)
        weight = 1 - ramp * (1 - self.clean_weight)
        ball = property.with_epsilon(np.asarray(property.epsilon) * ramp).ball(step.x)
        intervals = _Intervals(step.x, ball.lower, ball.upper)
        with intervals:
            logits = step.module(step.x)
        labels = property.reference_labels(logits.detach(), step.labels)
        conclusion = property.conclusion(logits, labels)
        rows = _rows(conclusion, property)
        lower = intervals.lower(logits, rows.A)
        if self.method == "crown-ibp" and ramp < 1:
            by_lines = _lower_by_lines(step.module, step.x, ball, rows.A, intervals)
            lower = ramp * lower + (1 - ramp) * by_lines
        gaps = conclusion.gaps(lower + rows.b)
        worst = step.mean(torch.logsumexp(functional.pad(-gaps, (1, 0)), dim=1))
        clean = step.task_loss(logits)
        return weight * clean + (1 - weight) * worst, logits


def _rows(conclusion, property):
    """Return the linear rows whose bounds are trained, or refuse."""
    rows = conclusion.sufficient()
    if rows.uses_distance or rows.output != "logits":
        raise UnsupportedPropertyError(
            f"Got {property!r}, but CertifiedTraining expects rows of the logits that do "
            "not depend on the distance, such as those of ClassificationRobustness."
        )
    return rows


# ---- intervals with gradients ------------------------------------------------------------

_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
# Each entry of the output grows, or stays, with each entry of the input.
_MONOTONE = {
    "relu", "leaky_relu", "hardtanh", "relu6", "clamp", "clip", "clamp_min", "clamp_max", "tanh",
    "sigmoid", "softplus", "elu", "selu", "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean", "sum", "view", "reshape", "flatten",
    "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "contiguous", "clone", "getitem",
    "float", "double", "to",
}  # fmt: skip
_METADATA = {"shape", "size", "dim", "ndim", "dtype", "device", "numel", "len", "is_contiguous",
             "is_floating_point", "stride", "requires_grad", "is_cuda", "layout"}  # fmt: skip


_RELUS = {"relu", "leaky_relu"}
_BENT = {
    "hardtanh", "relu6", "clamp", "clip", "clamp_min", "clamp_max", "tanh", "sigmoid", "softplus",
    "elu", "selu", "max_pool1d", "max_pool2d",
}  # fmt: skip


def _slope(name, args, kwargs):
    """Return the slope below 0 of a ReLU or leaky ReLU."""
    if name == "relu":
        return 0.0
    return args[1] if len(args) > 1 else kwargs.get("negative_slope", 0.01)


class _Intervals(TorchFunctionMode):
    """Carries an interval beside each tensor that a module computes from its input.

    Parameters
    ----------
    x, low, high : Tensor of shape (n, n_features)
        The input and its interval.
    """

    def __init__(self, x, low, high):
        super().__init__()
        self.known = {id(x): (low, high)}
        self.kinks = []  # of each ReLU, in the order of the calls: slope, and the interval before
        self.layers = {}  # outputs of linear layers: the interval before, weight, bias
        self.alive = [x]  # a tensor that is gone could hand its id on

    def lower(self, logits, A):
        """Return lower bounds of A z, of shape (n, m), where z are the logits.

        The rows are joined with the last linear layer first, which is tighter.
        """
        low, high = self.known[id(logits)]
        shift = 0.0
        if id(logits) in self.layers:
            low, high, weight, bias = self.layers[id(logits)]
            shift = 0.0 if bias is None else A @ bias
            A = A @ weight
        center, radius = (low + high) / 2, (high - low) / 2
        lower = (A @ center.unsqueeze(2) - A.abs() @ radius.unsqueeze(2)).squeeze(2)
        return lower + shift

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        values = [*args, *kwargs.values()]
        places = [k for k, v in enumerate(values) if id(v) in self.known]
        name = getattr(func, "__name__", str(func))
        name = func.__self__.__name__ if name == "__get__" else name
        name = name.strip("_")
        if not places or name in _METADATA:
            if any(isinstance(v, list | tuple) and self._holds(v) for v in values):
                raise _refusal(name)
            return func(*args, **kwargs)
        before = [self.known[id(values[k])] for k in places]
        output = func(*args, **kwargs)
        self.known[id(output)] = self._interval(name, func, args, kwargs, places, before, output)
        self.alive.append(output)
        return output

    def _holds(self, values):
        return any(id(value) in self.known for value in values)

    def _interval(self, name, func, args, kwargs, places, before, output):
        low, high = before[0]
        if name in _RELUS:
            self.kinks.append((_slope(name, args, kwargs), low, high))
        if name == "linear" and places == [0]:
            return self._linear(before[0], output, *args[1:], **kwargs)
        if name in _CONVOLUTIONS and places == [0]:
            return _convolution(func, (low + high) / 2, (high - low) / 2, *args[1:], **kwargs)
        if name in _MONOTONE and places == [0]:
            if name in _RELUS and _slope(name, args, kwargs) < 0:
                raise _refusal(name)
            # Copies, for operations in place.
            return tuple(func(end.clone(), *args[1:], **kwargs) for end in (low, high))
        if name == "batch_norm":
            return _batch_norm(args[0], low, high, *args[1:], **kwargs)
        if name in ("dropout", "dropout1d", "dropout2d"):
            if output is args[0] or torch.equal(output, args[0]):
                return low, high
            raise _refusal(name)
        if name in ("add", "radd", "iadd", "sub", "isub", "rsub") and not kwargs:
            return _sum(name, args, places, before)
        if name in ("mul", "rmul", "imul", "div", "truediv", "itruediv") and places == [0]:
            ends = [func(end.clone(), args[1]) for end in (low, high)]
            return torch.minimum(*ends), torch.maximum(*ends)
        if name == "neg":
            return -high, -low
        raise _refusal(name)

    def _linear(self, interval, output, weight, bias=None):
        low, high = interval
        self.layers[id(output)] = (low, high, weight, bias)
        center = functional.linear((low + high) / 2, weight, bias)
        radius = functional.linear((high - low) / 2, weight.abs())
        return center - radius, center + radius


def _convolution(func, center, radius, weight, bias=None, *rest, **kwargs):
    center = func(center, weight, bias, *rest, **kwargs)
    radius = func(radius, weight.abs(), None, *rest, **kwargs)
    return center - radius, center + radius


def _batch_norm(x, low, high, mean, var, weight=None, bias=None, training=False, momentum=0.1,
                eps=1e-5, **_):  # fmt: skip
    """Apply the statistics of the batch itself, which the module has used for its output."""
    axes = [k for k in range(x.ndim) if k != 1]
    if training or mean is None:
        mean, var = x.mean(dim=axes), x.var(dim=axes, unbiased=False)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
    shift = -mean * scale if bias is None else bias - mean * scale
    ends = [end * scale.view(shape) + shift.view(shape) for end in (low, high)]
    return torch.minimum(*ends), torch.maximum(*ends)


def _sum(name, args, places, before):
    intervals = dict(zip(places, before, strict=True))
    first, second = (intervals.get(k, (args[k], args[k])) for k in (0, 1))
    if name == "rsub":
        first, second = second, first
    if "sub" in name:
        second = (-second[1], -second[0])
    return first[0] + second[0], first[1] + second[1]


def _refusal(name):
    return UnsupportedModelError(
        f"CertifiedTraining has no interval for the operation {name!r}. Linear and convolutional "
        "layers, batch norm, pooling, monotone activations, views, sums, and products with "
        "constants have one."
    )


# ---- lines with gradients ----------------------------------------------------------------


def _lower_by_lines(module, x, ball, A, intervals):
    """Return CROWN's lower bounds of A z, of shape (n, m), on intervals that are known.

    Each ReLU computes what it does, but its gradient is that of the line below it or above it,
    as the sign of what comes back asks. So the gradient of a row of the outputs by the input is
    the row of the input that CROWN finds, and itself has a gradient by the weights.
    """
    x = x.detach().clone().requires_grad_()
    lines = _Lines(intervals.kinks)
    with lines:
        logits = module(x)
    lower = []
    for rows in A.unbind(dim=1):
        lines.shifts = []
        (pulled,) = torch.autograd.grad(logits, x, rows, create_graph=True)
        # What is left of the outputs when all that depends on their inputs is taken away.
        constant = (rows * logits).sum(dim=1) - (pulled * x).sum(dim=1) + sum(lines.shifts)
        positive, negative = pulled.clamp(min=0), pulled.clamp(max=0)
        lower.append((positive * ball.lower + negative * ball.upper).sum(dim=1) + constant)
    return torch.stack(lower, dim=1)


class _Lines(TorchFunctionMode):
    """Gives each ReLU the gradient of its lines.

    Attributes
    ----------
    shifts : list of Tensor of shape (n,)
        What each ReLU adds to the constant of the row that was pulled back last.
    """

    def __init__(self, kinks):
        super().__init__()
        self.kinks = iter(kinks)
        self.shifts = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func)).strip("_")
        if name in _BENT:
            raise UnsupportedModelError(
                f"CertifiedTraining with method='crown-ibp' has no lines for the operation "
                f"{name!r}. Use method='ibp'."
            )
        if name not in _RELUS:
            return func(*args, **kwargs)
        slope, low, high = next(self.kinks)
        lines = relu_lines(low.new_tensor(slope), low, high)
        shifts = lines.low_shift, lines.high_shift
        return _Bend.apply(args[0], slope, lines.low, lines.high, *shifts, self)


class _Bend(torch.autograd.Function):
    """A leaky ReLU, whose gradient is that of its lines."""

    @staticmethod
    def forward(ctx, z, slope, low, high, low_shift, high_shift, mode):
        output = torch.where(z > 0, z, slope * z)
        ctx.save_for_backward(z, output, low, high, low_shift, high_shift)
        ctx.mode = mode
        return output

    @staticmethod
    def backward(ctx, row):
        z, output, low, high, low_shift, high_shift = ctx.saved_tensors
        positive, negative = row.clamp(min=0), row.clamp(max=0)
        pulled = positive * low + negative * high
        shift = positive * low_shift + negative * high_shift
        ctx.mode.shifts.append((shift - row * output + pulled * z).flatten(1).sum(dim=1))
        return pulled, None, None, None, None, None, None
