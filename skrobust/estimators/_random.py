"""Random numbers of a fit's own, also for what knows torch's global generator alone."""

import threading
from contextlib import ExitStack, contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = []

_GLOBAL_STATE = threading.Lock()
# Functions and methods of torch that may draw, by name.
_DRAWING = {
    "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "normal",
    "bernoulli", "poisson", "binomial", "multinomial", "bernoulli_", "cauchy_", "exponential_",
    "geometric_", "log_normal_", "normal_", "random_", "uniform_", "dropout", "dropout_",
    "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "alpha_dropout_", "feature_dropout",
    "feature_dropout_", "feature_alpha_dropout", "feature_alpha_dropout_", "native_dropout",
    "rrelu", "rrelu_", "gumbel_softmax", "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices", "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices", "scaled_dot_product_attention",
    "multi_head_attention_forward", "lstm", "gru", "rnn_tanh", "rnn_relu", "kaiming_uniform_",
    "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "trunc_normal_", "orthogonal_",
}  # fmt: skip


class Generators:
    """One generator a device, all from one seed; made where it is needed."""

    def __init__(self, seed):
        self.seed = seed
        self.made = {}

    def on(self, device):
        """Return the generator of a device."""
        device = torch.empty(0, device=device).device  # "cuda" is then "cuda:0"
        if device not in self.made:
            self.made[device] = torch.Generator(device).manual_seed(self.seed)
        return self.made[device]


class OwnDraws(TorchDispatchMode):
    """Give generators of one's own to the operations that would draw from torch's global one.

    A dispatch mode belongs to its thread and sees every operation of torch below autograd, from
    Python, C++ or TorchScript; so `torch.nn.init`, dropout, and distributions are served alike.

    An operation that takes no generator at all (attention fused with dropout, cuDNN's recurrent
    dropout) is run alone, between seeding the global generator and putting its state back.
    """

    def __init__(self, generators):
        super().__init__()
        self.generators = generators
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not _draws(func) or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        self.count += 1
        generator = self.generators.on(_device(args, kwargs))
        if any(argument.name == "generator" for argument in func._schema.arguments):
            return func(*args, **kwargs | {"generator": generator})
        return _drawn(func, args, kwargs, generator)


def _draws(func, known={}):  # noqa: B006  (a cache: tags are slow to read)
    if func not in known:
        known[func] = torch.Tag.nondeterministic_seeded in func.tags
    return known[func]


def _device(args, kwargs):
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
    first = next(tensors, None)
    return kwargs.get("device") or (torch.get_default_device() if first is None else first.device)


def _drawn(func, args, kwargs, generator):
    """Run an operation that takes no generator, with the numbers of one."""
    packet, overload = func.overloadpacket, func._overloadname
    if packet.__name__ == "native_dropout" and args[2] is not False:
        return _dropout(*args[:2], generator)
    twin = "generator" if overload == "default" else f"{overload}_generator"
    if twin in packet.overloads():  # as of torch.rand and torch.randint
        return getattr(packet, twin)(*args, **kwargs, generator=generator)
    seed = torch.empty((), dtype=torch.int64, device=generator.device)
    seed = int(seed.random_(generator=generator))
    on_gpu = generator.device.type == "cuda"
    devices = [generator.device] if on_gpu else []
    with _GLOBAL_STATE, torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed, which would seed all devices.
        if on_gpu:
            torch.cuda.default_generators[generator.device.index].manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)
        return func(*args, **kwargs)


def _dropout(x, p, generator):
    """Return what torch's fused dropout returns: the output, and the mask of what was kept."""
    kept = torch.empty_like(x).bernoulli_(1 - p, generator=generator)
    return (x * kept / (1 - p) if p < 1 else x * kept), kept.bool()


class _Tracer(TorchFunctionMode):
    """Find the functions of torch that draw, while every operation is served."""

    def __init__(self, draws):
        super().__init__()
        self.draws = draws
        self.functions = set()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        before = self.draws.count
        try:
            return func(*args, **(kwargs or {}))
        finally:
            if self.draws.count > before:
                self.functions.add(func)
                self.count += self.draws.count - before


class _Selected(TorchFunctionMode):
    """Serve the operations inside of those functions of torch alone that draw."""

    def __init__(self, draws, functions):
        super().__init__()
        self.draws = draws
        self.functions = functions

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func not in self.functions and getattr(func, "__name__", None) not in _DRAWING:
            return func(*args, **(kwargs or {}))
        with self.draws:
            return func(*args, **(kwargs or {}))


class Watch:
    """Serve what draws in the steps of a training, at little cost.

    To serve every operation can double the time of a small network's step. So that is done in
    the first step of each epoch, and shows which functions draw. In the other steps these and
    the well-known ones are served; nothing at all where code that is known draws nothing. What
    draws from nowhere in Python (TorchScript) is served by serving everything; where it begins
    to draw in the middle of an epoch, it is missed until the next.

    Parameters
    ----------
    generators : Generators
    known : bool
        Whether code that is known trains, which draws in the first step or never.
    """

    def __init__(self, generators, known):
        self.draws = OwnDraws(generators)
        self.known = known
        self.functions = None  # not looked for yet
        self.everywhere = False

    @contextmanager
    def step(self, is_first):
        """Serve the draws of one step; `is_first` in the first one of an epoch."""
        look = self.functions is None or (is_first and not self.known)
        with ExitStack() as modes:
            if look:
                before, tracer = self.draws.count, _Tracer(self.draws)
                modes.enter_context(self.draws)
                modes.enter_context(tracer)
            elif self.everywhere:
                modes.enter_context(self.draws)
            elif self.functions or not self.known:
                modes.enter_context(_Selected(self.draws, self.functions))
            yield
        if look:
            self.functions = tracer.functions | (self.functions or set())
            self.everywhere |= self.draws.count - before > tracer.count


def is_known(*parts):
    """Whether objects, classes, and the layers of modules are torch's or our own."""
    layers = (part.modules() if isinstance(part, torch.nn.Module) else (part,) for part in parts)
    kinds = (
        layer if isinstance(layer, type) else type(layer) for group in layers for layer in group
    )
    own = ("torch.nn.", "torch.optim.", "skrobust.")
    return all(kind.__module__.startswith(own) for kind in kinds)
