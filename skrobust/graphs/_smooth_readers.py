"""How torch functions that bend everywhere are read, and products that stand for one of them."""

import math

import torch

from skrobust.graphs._nodes import Scale
from skrobust.graphs._smooth import Elu, Erf, Gelu, Sigmoid, Silu, Softplus, Tanh
from skrobust.graphs._trace import arguments, reads, single

__all__ = ["gated"]

# As torch has them.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848, 1.0507009873554804934


def _node(kind, tracer, name, x, output, **fields):
    position = single(tracer, name, x)
    return kind(inputs=(position,), shape=tracer.shape(output), path=tracer.label, **fields)


_PLAIN = {"tanh": Tanh, "sigmoid": Sigmoid, "erf": Erf, "silu": Silu}


@reads(*_PLAIN)
def _read_plain(tracer, name, func, args, kwargs, output):
    x = args[0] if args else kwargs["input"]
    return _node(_PLAIN[name], tracer, name, x, output)


@reads("gelu")
def _read_gelu(tracer, name, func, args, kwargs, output):
    x, approximate = arguments(args, kwargs, input=None, approximate="none")
    return _node(Gelu, tracer, name, x, output, approximate=approximate)


def _plain_number(tracer, name, value):
    if isinstance(value, torch.Tensor):
        if tracer.is_marked(value) or value.numel() > 1:
            raise tracer.refusal(name, "is read only with numbers as parameters")
        return value.item()
    return float(value)


@reads("softplus")
def _read_softplus(tracer, name, func, args, kwargs, output):
    x, beta, threshold = arguments(args, kwargs, input=None, beta=1.0, threshold=20.0)
    fields = {"beta": beta, "threshold": threshold}
    fields = {key: _plain_number(tracer, name, value) for key, value in fields.items()}
    return _node(Softplus, tracer, name, x, output, **fields)


@reads("elu")
def _read_elu(tracer, name, func, args, kwargs, output):
    x, alpha = arguments(args, kwargs, input=None, alpha=1.0)
    return _node(Elu, tracer, name, x, output, alpha=_plain_number(tracer, name, alpha))


@reads("celu")
def _read_celu(tracer, name, func, args, kwargs, output):
    x, alpha = arguments(args, kwargs, input=None, alpha=1.0)
    alpha = _plain_number(tracer, name, alpha)
    return _node(Elu, tracer, name, x, output, alpha=alpha, rate=1 / alpha)


@reads("selu")
def _read_selu(tracer, name, func, args, kwargs, output):
    x = args[0] if args else kwargs["input"]
    return _node(Elu, tracer, name, x, output, alpha=_SELU_ALPHA, scale=_SELU_SCALE)


def gated(tracer, output, first, second):
    """Read x * sigmoid(w x) as SiLU, x * a (1 + erf(w x)) as GELU; None for other products."""
    for x, gate in ((first, second), (second, first)):
        start, scale = _source(tracer, tracer.at(x))
        node, factor, shift = _unscaled(tracer, tracer.at(gate))
        if not isinstance(node, Sigmoid | Erf) or factor is None:
            continue
        source, weight = _source(tracer, node.inputs[0])
        if source != start or weight == 0:
            continue
        # z sigmoid(z) at z = w x is w times what is asked for; z (1 + erf(z / sqrt(2))) / 2, which
        # is GELU, at z = sqrt(2) w x is sqrt(2) w / 2 times that.
        if isinstance(node, Sigmoid) and shift == 0:
            kind, gain, share = Silu, weight, 1.0
        elif isinstance(node, Erf) and shift == factor:
            kind, gain, share = Gelu, math.sqrt(2) * weight, 2.0
        else:
            continue
        inner = _placed(tracer, _scaled(tracer, start, gain, output))
        unit = kind(inputs=(inner,), shape=tracer.shape(output), path=tracer.label)
        return _scaled(tracer, tracer.add(unit), share * scale * factor / gain, output)
    return None


def _placed(tracer, node):
    return node if isinstance(node, int) else tracer.add(node)


def _scaled(tracer, start, factor, output):
    if factor == 1:
        return start
    shape = tracer.shape(output)
    return Scale(
        inputs=(start,), shape=shape, path=tracer.label, weight=tracer.number(factor),
        bias=tracer.number(0.0), input_shape=shape,
    )  # fmt: skip


def _unscaled(tracer, position):
    """Return the node that one is factor * it + shift of, and both numbers (None: not one)."""
    factor, shift, node = 1.0, 0.0, tracer.nodes[position]
    while isinstance(node, Scale) and node.shape == node.input_shape:
        weight, bias = _one_number(node.weight), _one_number(node.bias)
        if weight is None or bias is None:
            return node, None, None
        factor, shift = factor * weight, shift + factor * bias
        node = tracer.nodes[node.inputs[0]]
    return node, factor, shift


def _source(tracer, position):
    """Return the position of the node that one is a multiple of, and the factor."""
    factor, node = 1.0, tracer.nodes[position]
    while isinstance(node, Scale) and node.shape == node.input_shape:
        weight, bias = _one_number(node.weight), _one_number(node.bias)
        if weight is None or bias != 0:
            break
        factor, position = factor * weight, node.inputs[0]
        node = tracer.nodes[position]
    return position, factor


def _one_number(value):
    """Return the number that a constant consists of; None for several, and for parameters."""
    numbers = value.flatten()
    if value.requires_grad or len(numbers) == 0 or (numbers != numbers[0]).any():
        return None
    return numbers[0].item()
