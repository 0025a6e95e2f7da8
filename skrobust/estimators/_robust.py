"""A classifier that is trained under a robustness property."""

import copy

import numpy as np
import torch
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from skrobust._validation import check_device, check_instance, check_integer, check_real, expected
from skrobust.estimators._base import LogitsClassifier
from skrobust.estimators._skorch import (
    EpochBridge,
    RegimeNet,
    SeededTorch,
    iterate_batches,
    perceptron,
)
from skrobust.exceptions import DivergedTrainingError
from skrobust.networks import Network, as_network
from skrobust.properties import RobustnessProperty
from skrobust.training import StandardTraining, TrainingRegime

__all__ = ["RobustClassifier"]


class RobustClassifier(CallbackSupportMixin, LogitsClassifier):
    """Neural network classifier that is trained under a robustness property.

    The property and the training regime are hyperparameters: a search can sweep over them
    (``training=[StandardTraining(), AdversarialTraining()]``) and into them
    (``property__epsilon=[0.05, 0.1]``). A skorch classifier does the training, and tells the
    callbacks of both skorch (`callbacks`) and scikit-learn (`set_callbacks`) of each epoch.

    Parameters
    ----------
    module : None, torch.nn.Module, or callable that returns one, default=None
        Network from inputs to logits. None builds a ReLU perceptron from the data's shape. A
        module's own weights are the starting point of `fit`, which works on a copy of it.
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Hidden units of the perceptron, for ``module=None``.
    property : RobustnessProperty or None, default=None
        What the regime trains for. It lives in the space of the `X` that `fit` is given.
    training : TrainingRegime or None, default=None
        How to train; None is StandardTraining.
    clamp : pair of floats or None, default=None
        Cut the logits to this range, as Casadio et al. do with (-100, 100).
    input_shape : tuple of int or None, default=None
        Shape to give each row of `X` before the module sees it, such as (1, 28, 28).
    max_epochs : int, default=50
        Passes over the data.
    batch_size : int, default=128
        Samples of a step.
    lr : float, default=0.005
        Learning rate.
    optimizer : type, default=torch.optim.Adam
        Optimiser class.
    criterion : type, default=torch.nn.CrossEntropyLoss
        Loss of the task, a class whose instances take logits and class indices.
    module_params, optimizer_params : dict or None, default=None
        Arguments for `module` (where it is a callable) and `optimizer`. In `set_params`, and
        so in a search, write ``module__width=64`` or ``optimizer__weight_decay=1e-4``.
    callbacks : list or None, default=None
        Further skorch callbacks.
    train_split : callable or None, default=None
        skorch's split for a validation set, such as ``skorch.dataset.ValidSplit(5)``.
    device : str, default="cpu"
        Torch device.
    random_state : int, RandomState instance or None, default=None
        Makes `fit` repeatable. The global state of torch is left as it was.
    verbose : int, default=0
        Whether skorch prints each epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Only where `X` has string column names.
    net_ : skorch.NeuralNetClassifier
        The trained net; its module takes rows and returns logits.
    history_ : skorch.history.History
        What each epoch and batch recorded.

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.training import AdversarialTraining
    >>> X, y = load_digits(return_X_y=True)
    >>> model = RobustClassifier(
    ...     property=ClassificationRobustness(epsilon=0.1),
    ...     training=AdversarialTraining(),
    ...     max_epochs=5,
    ...     random_state=0,
    ... ).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.7
    True
    """

    def __init__(
        self,
        module=None,
        *,
        hidden_layer_sizes=(100,),
        property=None,
        training=None,
        clamp=None,
        input_shape=None,
        max_epochs=50,
        batch_size=128,
        lr=0.005,
        optimizer=torch.optim.Adam,
        criterion=torch.nn.CrossEntropyLoss,
        module_params=None,
        optimizer_params=None,
        callbacks=None,
        train_split=None,
        device="cpu",
        random_state=None,
        verbose=0,
    ):
        self.module = module
        self.hidden_layer_sizes = hidden_layer_sizes
        self.property = property
        self.training = training
        self.clamp = clamp
        self.input_shape = input_shape
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.criterion = criterion
        self.module_params = module_params
        self.optimizer_params = optimizer_params
        self.callbacks = callbacks
        self.train_split = train_split
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def set_params(self, **params):
        """Set parameters, also ``module__...`` and ``optimizer__...``; return self."""
        for part in ("module", "optimizer"):
            start = f"{part}__"
            given = {name: params.pop(name) for name in list(params) if name.startswith(start)}
            if given:
                name = f"{part}_params"
                old = params.get(name, getattr(self, name)) or {}
                params[name] = old | {key.removeprefix(start): given[key] for key in given}
        return super().set_params(**params)

    @with_callbacks
    def fit(self, X, y):
        """Train from the start.

        An interrupt by the keyboard ends training, as in skorch: what was learned is kept.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter, the property or the data is not valid; the message names it.
        DivergedTrainingError
            If the loss becomes NaN or infinite.
        """
        X, y = self._validated(X, y, reset=True)
        self._start(X, np.unique(y))
        return self._train(X, y, self.max_epochs)

    @with_callbacks
    def partial_fit(self, X, y, classes=None):
        """Train for one pass over the data, from where the last call stopped.

        `training` and `property` may have been changed since, as for fine-tuning; parameters
        of the net and its optimiser take effect in the first call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        classes : array-like of shape (n_classes,), default=None
            All classes, in the first call; those of `y` if None.

        Returns
        -------
        self
        """
        first = not hasattr(self, "net_")
        X, y = self._validated(X, y, reset=first)
        if first:
            classes = np.unique(y if classes is None else classes)
            unseen = np.setdiff1d(y, classes)
            if len(unseen):
                expectation = f"all labels in y, also {unseen.tolist()}"
                raise ValueError(expected("classes", classes.tolist(), expectation))
            self._start(X, classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            known = f"{self.classes_.tolist()}, as in the first call"
            raise ValueError(expected("classes", classes, known))
        else:
            # What trains may change between calls; the net and its optimiser stay.
            self.net_.regime, self.net_.property = self._regime(), self.property
        return self._train(X, y, 1)

    @property
    def history_(self):
        """What each epoch and batch recorded (skorch's history)."""
        check_is_fitted(self)
        return self.net_.history

    def save_params(self, **files):
        """Write the state of the net, as skorch does: ``save_params(f_params="model.pt")``."""
        check_is_fitted(self)
        self.net_.save_params(**files)

    def load_params(self, **files):
        """Read what `save_params` wrote for a net of the same shape; return self."""
        check_is_fitted(self)
        self.net_.load_params(**files)
        return self

    def _validated(self, X, y, reset):
        X, y = validate_data(self, X, y, dtype=np.float32, reset=reset)
        check_classification_targets(y)
        check_integer("max_epochs", self.max_epochs, low=1)
        check_integer("batch_size", self.batch_size, low=1)
        check_real("lr", self.lr, low=0, closed="neither")
        check_device(self.device)
        if self.clamp is not None and not _is_range(self.clamp):
            expectation = "None, or a pair (low, high) of finite floats with low < high"
            raise ValueError(expected("clamp", self.clamp, expectation))
        self._check_callables()
        if self.property is not None:
            example = "ClassificationRobustness(epsilon=0.1)"
            check_instance("property", self.property, RobustnessProperty, example).check(X)
        check_instance("training", self._regime(), TrainingRegime, "AdversarialTraining()")
        self._regime().check(self.property, X)
        return X, y

    def _check_callables(self):
        takes_none = self.module is None or isinstance(self.module, torch.nn.Module)
        if self.module_params and takes_none:
            expectation = "None, unless module is a callable that takes them"
            raise ValueError(expected("module_params", self.module_params, expectation))
        if self.input_shape is not None and self.module is None:
            expectation = "None, since the perceptron of module=None takes rows"
            raise ValueError(expected("input_shape", self.input_shape, expectation))
        for name in ("module", "optimizer", "criterion", "train_split"):
            value = getattr(self, name)
            optional = name in ("module", "train_split")
            if not (callable(value) or (optional and value is None)):
                expectation = "None or a callable" if optional else "a class"
                raise TypeError(expected(name, value, expectation))

    def _regime(self):
        return StandardTraining() if self.training is None else self.training

    def _start(self, X, classes):
        """Build the net, with weights drawn by `random_state`."""
        if len(classes) < 2:
            raise ValueError(
                f"Got y with the one class {classes.tolist()}, but expected at least two classes."
            )
        self.classes_ = classes
        self._rng = check_random_state(self.random_state)
        optimizer = {f"optimizer__{k}": v for k, v in (self.optimizer_params or {}).items()}
        with self._seeded():
            module = self._module(X.shape[1], len(classes))
            self._check_outputs(module, X, len(classes))
            self.net_ = RegimeNet(
                module,
                regime=self._regime(),
                property=self.property,
                criterion=self.criterion,
                optimizer=self.optimizer,
                lr=self.lr,
                batch_size=self.batch_size,
                iterator_train=iterate_batches,
                iterator_train__shuffle=True,
                iterator_valid=iterate_batches,
                train_split=self.train_split,
                callbacks=self.callbacks,
                classes=np.arange(len(classes)),
                device=self.device,
                verbose=self.verbose,
                **optimizer,
            ).initialize()

    def _train(self, X, y, epochs):
        labels = self._network().encode(y).cpu().numpy()
        task = {"estimator": self, "X": X, "y": y}
        context = self._init_callback_context(max_subtasks=epochs)
        context.call_on_fit_task_begin(**task)
        self.net_.callbacks_.append(("scikit-learn", EpochBridge(self, context, X, y)))
        try:
            with self._seeded():
                self.net_.partial_fit(X, labels, epochs=epochs)
        finally:
            self.net_.callbacks_.pop()  # it holds the data
        self._check_finite(X)
        context.call_on_fit_task_end(**task, reconstruction_attributes={"net_": self.net_})
        return self

    def _check_finite(self, X):
        """Refuse a net that the last step broke: the loss was checked before it, not after."""
        network = self._network()
        with torch.no_grad():
            results = [network(network.rows(X[: self.batch_size])), *network.module.parameters()]
        if not all(torch.isfinite(result).all() for result in results):
            epoch, batch = len(self.history_), len(self.history_[-1]["batches"])
            raise DivergedTrainingError(
                f"The weights or outputs became NaN or infinite by the end of epoch {epoch}, "
                f"batch {batch}. Try a smaller lr, or scaled inputs."
            )

    def _seeded(self):
        return SeededTorch(self._rng.randint(2**31 - 1), self.device)

    def _module(self, n_features, n_classes):
        if self.module is None:
            module = perceptron(n_features, self._hidden_layer_sizes(), n_classes)
        elif isinstance(self.module, torch.nn.Module):
            module = copy.deepcopy(self.module)
        else:
            module = self.module(**(self.module_params or {}))
        layers = [module]
        if self.input_shape is not None:
            layers.insert(0, torch.nn.Unflatten(1, self._input_shape(n_features)))
        if self.clamp is not None:
            layers.append(torch.nn.Hardtanh(*self.clamp))
        return torch.nn.Sequential(*layers)

    def _hidden_layer_sizes(self):
        sizes = self.hidden_layer_sizes
        for size in np.atleast_1d(sizes):
            if not (isinstance(size, np.integer) and size > 0):
                expectation = "a positive integer or a sequence of positive integers"
                raise ValueError(expected("hidden_layer_sizes", sizes, expectation))
        return [int(size) for size in np.atleast_1d(sizes)]

    def _input_shape(self, n_features):
        shape = tuple(np.atleast_1d(self.input_shape).tolist())
        if np.prod(shape) != n_features:
            expectation = f"a shape of {n_features} entries, the number of features of X"
            raise ValueError(expected("input_shape", self.input_shape, expectation))
        return shape

    def _check_outputs(self, module, X, n_classes):
        """Refuse a module that does not return one logit for each class, before training."""
        module.eval()
        try:
            with torch.no_grad():
                rows = torch.tensor(X[:2], device=self.device)
                shape = tuple(module.to(self.device)(rows).shape)
        except RuntimeError as error:
            raise ValueError(
                f"Got a module that cannot take rows of {X.shape[1]} features (with "
                f"input_shape={self.input_shape!r}): {error}"
            ) from error
        if shape != (len(X[:2]), n_classes):
            raise ValueError(
                f"Got a module with outputs of shape {shape} for {len(X[:2])} rows, but expected "
                f"({len(X[:2])}, {n_classes}): one logit for each class in y."
            )

    def _network(self):
        return Network(self.net_.module_, self.classes_, self.n_features_in_)

    def _logits(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        # A DataLoader draws from torch's global generator, even where it does not shuffle.
        with torch.random.fork_rng(devices=[]):
            return self.net_.forward(X, device="cpu").numpy()


def _is_range(pair):
    try:
        low, high = pair
        return bool(np.isscalar(low) and np.isscalar(high) and -np.inf < low < high < np.inf)
    except (TypeError, ValueError):
        return False


@as_network.register(RobustClassifier)
def _read_robust(model, *, input_shape=None):
    check_is_fitted(model)
    return model._network()
