"""The skorch net inside, and its callbacks."""

import copy
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from skorch.utils import to_tensor

from skrobust._validation import call_of_user, expected, shown
from skrobust.estimators._batches import InOrder, Samples, Shuffled
from skrobust.estimators._masks import bound, clear_gradients, clear_weights
from skrobust.estimators._random import Generators, OwnDraws, Watch, is_known
from skrobust.exceptions import DivergedTrainingError
from skrobust.training import SequentialTraining, TrainingFit, TrainingStep

__all__ = []


@dataclass(eq=False)
class Call:
    """What one call of `fit` or `partial_fit` works with; nothing of it outlives the call."""

    fit: TrainingFit
    shuffler: torch.Generator
    draws: OwnDraws
    watch: Watch
    origin: np.ndarray  # of the last rows, which were made of others: the row of each
    state: object = None
    started: bool = False
    masked: list = ()  # pairs of a parameter and the mask of its pruned weights

    @classmethod
    def seeded(cls, fit, seed, known, origin):
        """Give a fit sources of random numbers of its own, that all follow from one seed."""
        # Four streams: how a regime draws changes neither the order of the batches nor dropout.
        own, order, draws, numpy = (int(s) for s in np.random.SeedSequence(seed).generate_state(4))
        generators = Generators(draws)
        fit = replace(
            fit,
            generator=torch.Generator(fit.device).manual_seed(own),
            random_state=np.random.RandomState(numpy),
        )
        shuffler = torch.Generator().manual_seed(order)
        return cls(fit, shuffler, OwnDraws(generators), Watch(generators, known), origin)


class NamesOptimizer:
    """Mixin of skorch's nets: an optimizer that cannot be made is refused by name."""

    def initialize_optimizer(self, *args, **kwargs):
        try:
            super().initialize_optimizer(*args, **kwargs)
        except Exception as error:  # whatever a user's code raises
            expectation = f"what takes parameters of a module, lr and these. It says: {error}"
            raise ValueError(self._optimizer_refusal(expectation)) from error
        if not isinstance(self.optimizer_, torch.optim.Optimizer):
            expectation = "what returns a torch.optim.Optimizer, as torch.optim.Adam does."
            raise TypeError(self._optimizer_refusal(expectation))
        return self

    def _optimizer_refusal(self, expectation):
        given = self.get_params_for("optimizer")
        return (
            f"Got optimizer={shown(self.optimizer)} with optimizer_params={shown(given)}, but "
            f"expected {expectation}"
        )


class RegimeNet(NamesOptimizer, NeuralNetClassifier):
    """A skorch classifier whose training step is a regime's."""

    call = None  # while it trains
    stopped_midway = False  # whether the last training ended within an epoch, by an interrupt
    kept = (None, None)  # the regime of the last call, and the state that it ended with
    masks = None  # of pruned parameters, by name, on the CPU: False where weights stay zero

    def __init__(self, *args, regime, property, **kwargs):
        super().__init__(*args, **kwargs)
        self.regime = regime
        self.property = property

    def train(self, fit, seed, origin=None, companion=None):
        """Train for `fit.n_epochs` epochs on a `TrainingFit`; return what the regime leaves.

        The last rows may have been made of rows before; `origin` has the row of each of them.
        `companion` is what the regime has left before, and what stays if it does not start.
        """
        known = is_known(self.module_, self.criterion_, *_codes(self.regime))
        origin = np.zeros(0, dtype=int) if origin is None else origin
        self.call = Call.seeded(replace(fit, previous=self._kept_state()), seed, known, origin)
        self.call.masked = bound(self.module_, self.masks)
        self.stopped_midway = True
        rates = [group["lr"] for group in self.optimizer_.param_groups]
        try:
            self.partial_fit(self.call.fit.X, self.call.fit.y, epochs=fit.n_epochs)
            if not self.call.started:  # an interrupt came before
                return companion if self.kept[0] is self.regime else None
            with self.call.draws:
                companion = self.regime.finish(self.call.state)
            self.kept = (self.regime, self.call.state)
            return companion
        except BaseException:
            # Regimes may have been letting them fall; calls that follow learn at the full rate.
            for group, rate in zip(self.optimizer_.param_groups, rates, strict=True):
                group["lr"] = rate
            raise
        finally:
            # Regimes and callbacks may have put other weights into the module.
            clear_weights(self.call.masked)
            self.call = None

    def _kept_state(self):
        regime, state = self.kept
        return state if regime is self.regime else None

    def __getstate__(self):
        # Neither data nor what a regime made of them: also where skorch's Checkpoint pickles.
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in ("call", "kept")}

    # ---- data -----------------------------------------------------------------

    def get_split_datasets(self, X, y=None, **split_params):
        call = self.call
        everything = Samples(X, y, call.fit.sample_weight, torch.arange(len(X)))
        n_given = len(X) - len(call.origin)
        whole = everything.part(slice(n_given))
        train, valid = whole, None
        if self.train_split:
            function = partial(self.train_split, **split_params)
            split = call_of_user("train_split", function, whole, whole.y)
            if not isinstance(split, tuple | list) or len(split) != 2:
                expectation = "a function that returns two data sets"
                raise ValueError(
                    f"Got train_split that returns {shown(split)}, but expected {expectation}."
                )
            train, valid = split
        train = Samples.of(train)
        if len(call.origin):
            train = train.and_also(everything.part(n_given + self._trained_on(train)))
        # Only now: what a regime adds to the data must not meet those that validate.
        call.fit = replace(call.fit, X=train.X, y=train.y, sample_weight=train.sample_weight)
        with call.draws:
            call.state = self.regime.start(call.fit)
        call.started = True
        return train, valid

    def _trained_on(self, train):
        """Return which of the rows that were made of others were made of training data."""
        if train.rows is None:
            expectation = (
                "a function that returns the data it was given, or torch.utils.data.Subset of "
                "them, where rows made of others must not validate"
            )
            raise ValueError(expected("train_split", self.train_split, expectation))
        return torch.as_tensor(np.flatnonzero(np.isin(self.call.origin, train.rows.numpy())))

    def get_iterator(self, dataset, training=False):
        if training and self.call is not None:
            return Shuffled(self.call.fit, self.call.shuffler)
        return InOrder(dataset, self.batch_size)

    # ---- steps ----------------------------------------------------------------

    def run_single_epoch(self, iterator, training, *args, **kwargs):
        # Callbacks that end training raise the same KeyboardInterrupt, but between epochs.
        self.stopped_midway = True
        if training:
            with self.call.draws:
                self.regime.begin_epoch(self.call.state, len(self.history) - 1)
        super().run_single_epoch(iterator, training, *args, **kwargs)
        self.stopped_midway = False

    def train_step(self, batch, **fit_params):
        result = super().train_step(batch, **fit_params)
        # What optimizers remember, as momentum, moves weights whose gradient is zero.
        clear_weights(self.call.masked)
        return result

    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        step = self._step(batch)
        watch = self.call.watch
        with watch.step(is_first=step.batch == 0):
            loss, logits = self._checked(self.regime.loss(self.call.state, step), step)
            n_draws = watch.draws.count
            loss.backward()
        clear_gradients(self.call.masked)
        if watch.draws.count > n_draws:
            raise ValueError(
                "Got a module that draws random numbers while gradients are computed, as "
                "torch.utils.checkpoint does around dropout: they would not be those of the "
                "forward pass, and the gradients wrong. Leave out the one or the other."
            )
        return {"loss": loss, "y_pred": logits.detach()}

    def _step(self, batch):
        fit = self.call.fit
        x, labels = (to_tensor(part, device=self.device) for part in unpack_data(batch))
        weight = batch.sample_weight
        return TrainingStep(
            self.module_,
            self.criterion_ if weight is None else each(self.criterion_),
            x,
            labels,
            self.property,
            epoch=len(self.history) - 1,
            batch=len(self.history[-1]["batches"]) - 1,
            n_steps=fit.n_steps,
            max_epochs=fit.max_epochs,
            index=batch.index,
            sample_weight=None if weight is None else weight.to(self.device),
            generator=fit.generator,
        )

    def _checked(self, returned, step):
        """Return the loss and the logits of a regime, if they are that; else raise."""
        regime = type(self.regime).__name__
        if not (isinstance(returned, tuple | list) and len(returned) == 2):
            expectation = "a pair: the loss, a scalar tensor, and the logits at the batch"
            raise TypeError(_message(f"{regime}.loss(...)", returned, expectation))
        loss, logits = returned
        if not isinstance(loss, torch.Tensor) or loss.ndim or not loss.is_floating_point():
            expectation = "a tensor of shape (), such as step.mean(losses), for the loss"
            raise TypeError(_message(f"{regime}.loss(...)[0]", loss, expectation))
        if not torch.isfinite(loss):
            where = f"epoch {step.epoch + 1}, batch {step.batch + 1}"
            raise diverged(loss, where, "a smaller weight of the property's loss")
        if not loss.requires_grad:
            expectation = "a loss with a gradient in the weights of the module"
            raise ValueError(_message(f"{regime}.loss(...)[0]", loss, expectation))
        shape = len(step.x), len(self.classes)
        if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != shape:
            expectation = f"the logits at the batch, a tensor of shape {shape}"
            raise TypeError(_message(f"{regime}.loss(...)[1]", logits, expectation))
        return loss, logits

    def validation_step(self, batch, **fit_params):
        weight = getattr(batch, "sample_weight", None)
        if weight is None:
            return super().validation_step(batch, **fit_params)
        self._set_training(False)
        x, labels = (to_tensor(part, device=self.device) for part in unpack_data(batch))
        with torch.no_grad():
            logits = self.infer(x)
            losses = each(self.criterion_)(logits, labels)
        return {"loss": (weight.to(self.device) * losses).mean(), "y_pred": logits}


def diverged(loss, where, weight):
    """Return the error about a loss that is not finite; `weight` is what else to make smaller."""
    return DivergedTrainingError(
        f"The training loss became {loss.item()} in {where}. Try a smaller lr, scaled inputs, or "
        f"{weight}."
    )


def _codes(regime):
    """Return a regime, or those of a sequence, with the code that users gave to them."""
    if isinstance(regime, SequentialTraining):
        return [code for part in regime.named_parts.values() for code in _codes(part)]
    return [regime, *filter(callable, vars(regime).values())]


def each(criterion):
    """Return a criterion that gives the loss of each sample, as weights need it."""
    if not hasattr(criterion, "reduction"):
        expectation = (
            "a criterion with an attribute `reduction`, as those of torch.nn have, where samples "
            "or classes have weights"
        )
        raise ValueError(expected("criterion", criterion, expectation))
    criterion = copy.copy(criterion)
    criterion.reduction = "none"
    return criterion


def _message(name, value, expectation):
    """Return the message of `expected`, with the shape of a tensor in place of its entries."""
    is_tensor = isinstance(value, torch.Tensor)
    shown = f"a tensor of shape {tuple(value.shape)}" if is_tensor else repr(value)
    return f"Got {name} = {shown}, but expected {expectation}."


class EpochBridge(Callback):
    """Tell scikit-learn's callbacks about skorch's epochs."""

    context = None

    def __init__(self, estimator, context, X, y):
        # An epoch is described by what a usable copy of the estimator needs, net_ above all.
        self.task = {
            "estimator": estimator,
            "X": X,
            "y": y,
            "reconstruction_attributes": {"net_": estimator.net_},
        }
        self.context = context

    def __getstate__(self):
        return {}  # a pickle made during training, by skorch's Checkpoint, is without the data

    def on_epoch_begin(self, net, **kwargs):
        if self.context is None:
            return
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(**self.task)

    def on_epoch_end(self, net, **kwargs):
        if self.context is not None and self.epoch.call_on_fit_task_end(**self.task):
            raise KeyboardInterrupt  # skorch's way to end training early
