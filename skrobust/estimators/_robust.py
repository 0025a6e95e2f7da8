"""A classifier that is trained under a robustness property."""

import numpy as np
import torch
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils.validation import check_is_fitted, validate_data

from skrobust._validation import check_seed, expected
from skrobust.estimators._base import LogitsClassifier, plain_array
from skrobust.estimators._modules import check_criterion, check_float32, check_input_shape
from skrobust.estimators._parameters import (
    check_data,
    check_parameters,
    module_of,
    weight_tensor,
)
from skrobust.estimators._random import Generators, OwnDraws
from skrobust.estimators._skorch import EpochBridge, RegimeNet
from skrobust.estimators._weights import checked_sample_weight, joint_weight
from skrobust.exceptions import DivergedTrainingError
from skrobust.networks import Network, as_network, check_logits, outputs_of
from skrobust.training import SequentialTraining, StandardTraining, TrainingFit

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
        Network from inputs to logits, in float32. None builds a ReLU perceptron from the data's
        shape. A module's own weights are the starting point of `fit`, which works on a copy of
        it; of one that was compiled, on a copy of the original.
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Hidden units of the perceptron, for ``module=None``.
    property : RobustnessProperty or None, default=None
        What the regime trains for. It lives in the space of the `X` that `fit` is given.
    training : TrainingRegime, list of pairs (TrainingRegime, int) or None, default=None
        How to train; None is StandardTraining. A list is a sequence of regimes, each with its
        number of epochs: short for `SequentialTraining`, which says what `max_epochs` is then.
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
        Optimizer class.
    criterion : type, default=torch.nn.CrossEntropyLoss
        Loss of the task, a class whose instances take logits and class indices.
    class_weight : None, "balanced" or dict, default=None
        Weight of each label, as in scikit-learn; "balanced" is the inverse of its frequency.
        It multiplies the sample weights.
    module_params, optimizer_params, criterion_params : dict or None, default=None
        Arguments for `module` (where it is a callable), `optimizer` and `criterion`. In
        `set_params`, and so in a search, write ``module__width=64``,
        ``optimizer__weight_decay=1e-4`` or ``criterion__label_smoothing=0.1``.
    callbacks : list or None, default=None
        Further skorch callbacks.
    train_split : callable or None, default=None
        skorch's split for a validation set, such as ``skorch.dataset.ValidSplit(5)``.
    device : str, default="cpu"
        Torch device.
    random_state : int, RandomState instance or None, default=None
        Makes `fit` repeatable, in threads as well; see Notes.
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
    companion_ : object
        What the training regime leaves beside the net, such as the generator of
        `MarginCoTraining`; None of most.

    Notes
    -----
    All random numbers of a fit come from generators of its own, which follow from
    `random_state`: initial weights, the order of the batches, what attacks and regimes draw,
    and dropout. So fits in threads are those that one gets one after the other, and torch's
    global generator is left alone. Out of reach are modules that draw from Python's or NumPy's
    global state, or that seed torch themselves. Operations of torch that take no generator at
    all (attention fused with dropout on a GPU) are run with the global one seeded for the
    moment: one at a time, but nothing else should draw from it at that moment.

    Weights of samples and classes are scaled to a mean of 1 over the data, and multiply the
    loss of each sample in a batch. So the gradient of a step is, on average, that of the
    weighted mean over the data. A sample of weight 0 is left out.

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
        class_weight=None,
        module_params=None,
        optimizer_params=None,
        criterion_params=None,
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
        self.class_weight = class_weight
        self.module_params = module_params
        self.optimizer_params = optimizer_params
        self.criterion_params = criterion_params
        self.callbacks = callbacks
        self.train_split = train_split
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    _sequence = (None, None)  # a list that `training` was, and the regime that it stands for

    def set_params(self, **params):
        """Set parameters, also ``module__...``, ``optimizer__...``, ``criterion__...``."""
        for part in ("module", "optimizer", "criterion"):
            start = f"{part}__"
            given = {name: params.pop(name) for name in list(params) if name.startswith(start)}
            if given:
                name = f"{part}_params"
                old = params.get(name, getattr(self, name)) or {}
                params[name] = old | {key.removeprefix(start): given[key] for key in given}
        return super().set_params(**params)

    @with_callbacks
    def fit(self, X, y, sample_weight=None):
        """Train from the start.

        An interrupt by the keyboard ends training, as in skorch: what was learned is kept, and
        ``net_.stopped_midway`` is True where the interrupt came within an epoch.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the loss of each sample, of at least 0; all equal if None.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter, the property or the data is not valid; the message names it.
        UnsupportedModelError
            If the module is of a kind that cannot be trained.
        DivergedTrainingError
            If the loss becomes NaN or infinite.
        """
        return self._train(*self._initialized(X, y, sample_weight), int(self.max_epochs))

    def _initialized(self, X, y, sample_weight):
        """Make a net that is not trained yet; return the data as it is trained on."""
        X, y, sample_weight = self._validated(X, y, sample_weight, reset=True)
        classes = np.unique(y)
        self._check_regime(X, classes)
        self._start(X, classes)
        return X, y, sample_weight

    @with_callbacks
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one pass over the data, from where the last call stopped.

        `training`, `property` and `class_weight` may have been changed since, as for
        fine-tuning; parameters of the net and its optimizer take effect in the first call. A
        regime with a state starts and finishes in each call, and is shown the state that the
        last call ended with.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        classes : array-like of shape (n_classes,), default=None
            All classes, in the first call; those of `y` if None.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the loss of each sample, of at least 0; all equal if None.

        Returns
        -------
        self
        """
        if isinstance(self.class_weight, str):
            expectation = "None or a dict: the frequencies of one call are not those of all"
            raise ValueError(expected("class_weight", self.class_weight, expectation))
        first = not hasattr(self, "net_")
        X, y, sample_weight = self._validated(X, y, sample_weight, reset=first)
        if first:
            classes = np.unique(y) if classes is None else _distinct(classes)
            unseen = np.setdiff1d(y, classes)
            if len(unseen):
                expectation = f"all labels in y, also {unseen.tolist()}"
                raise ValueError(expected("classes", classes.tolist(), expectation))
            self._check_regime(X, classes)
            self._start(X, classes)
        elif classes is not None and not np.array_equal(_distinct(classes), self.classes_):
            known = f"{self.classes_.tolist()}, as in the first call"
            raise ValueError(expected("classes", classes, known))
        else:
            self._check_regime(X, self.classes_)
            # What trains may change between calls; the net and its optimizer stay.
            self.net_.regime, self.net_.property = self._regime(), self.property
        return self._train(X, y, sample_weight, 1)

    @with_callbacks
    def _continue(self, X, y, sample_weight, n_epochs, origin=None):
        """Train the fitted net for more epochs; return whether no interrupt ended them.

        The last rows may have been made of rows before; `origin` has the row of each of them, so
        that none trains whose original validates. Weights are positive.
        """
        self._train(*self._validated(X, y, sample_weight, reset=False), n_epochs, origin)
        return not self.net_.stopped_midway

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

    def _validated(self, X, y, sample_weight, reset):
        X, y = plain_array(X), plain_array(y)
        X, y = validate_data(self, X, y, dtype=np.float32, reset=reset)
        check_parameters(self)
        sample_weight = checked_sample_weight(sample_weight, X)
        if sample_weight is not None:
            # Left out altogether: equal to a fit without them, whatever the batches are.
            kept = sample_weight > 0
            X, y, sample_weight = X[kept], y[kept], sample_weight[kept]
        check_data(X, y, self.property, self._regime())
        return X, y, sample_weight

    def _check_regime(self, X, classes):
        if len(classes) < 2:
            raise ValueError(
                f"Got y with the one class {classes.tolist()}, but expected at least two classes."
            )
        self._regime().check(self.property, X, len(classes))

    def _regime(self):
        if not isinstance(self.training, list | tuple):
            return StandardTraining() if self.training is None else self.training
        if self._sequence[0] is not self.training:
            # One and the same for one list, so that its state goes on in `partial_fit`.
            self._sequence = self.training, SequentialTraining.of_pairs(self.training)
        return self._sequence[1]

    def _start(self, X, classes):
        """Build the net, with weights drawn by `random_state`."""
        self.classes_, self.companion_ = classes, None
        self._rng = check_seed(self.random_state)
        with OwnDraws(Generators(self._seed())):
            module = self._module(X.shape[1], len(classes)).to(self.device)
            check_float32(module)
            rows = torch.tensor(X[:2], device=self.device)
            outputs = outputs_of(module.eval(), rows, f"with input_shape={self.input_shape!r}")
            logits = check_logits(outputs, len(rows), len(classes))
            check_criterion(self.criterion, self._arguments("criterion"), logits)
            net = RegimeNet(
                module,
                regime=self._regime(),
                property=self.property,
                criterion=self.criterion,
                optimizer=self.optimizer,
                lr=float(self.lr),
                batch_size=int(self.batch_size),
                train_split=self.train_split,
                callbacks=self.callbacks,
                classes=np.arange(len(classes)),
                device=self.device,
                verbose=self.verbose,
                **{f"optimizer__{k}": v for k, v in self._arguments("optimizer").items()},
                **{f"criterion__{k}": v for k, v in self._arguments("criterion").items()},
            )
            self.net_ = net.initialize()

    def _arguments(self, part):
        given = getattr(self, f"{part}_params") or {}
        return {name: weight_tensor(name, value) for name, value in given.items()}

    def _train(self, X, y, sample_weight, n_epochs, origin=None):
        labels = self._network().encode(y).cpu()
        weight = joint_weight(y, sample_weight, self.class_weight, self.classes_)
        fit = TrainingFit(
            self.net_.module_,
            torch.from_numpy(np.require(X, requirements=["C", "W"])),
            labels,
            self.classes_,
            self.property,
            None if weight is None else torch.as_tensor(weight, dtype=torch.float32),
            self.net_.optimizer_,
            int(self.max_epochs),
            n_epochs,
            len(self.net_.history),
            self.net_.batch_size,
            input_shape=check_input_shape(self.input_shape),
        )
        task = {"estimator": self, "X": X, "y": y}
        context = self._init_callback_context(max_subtasks=n_epochs)
        context.call_on_fit_task_begin(**task)
        self.net_.callbacks_.append(("scikit-learn", EpochBridge(self, context, X, y)))
        try:
            before = getattr(self, "companion_", None)
            self.companion_ = self.net_.train(fit, self._seed(), origin, before)
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

    def _seed(self):
        return self._rng.randint(2**31 - 1)

    def _module(self, n_features, n_classes):
        module = module_of(self, n_features, n_classes)
        if self.clamp is not None:
            module.append(torch.nn.Hardtanh(*map(float, self.clamp)))
        return module

    def _network(self):
        return Network(self.net_.module_, self.classes_, self.n_features_in_)

    def _logits(self, X):
        check_is_fitted(self)
        X = validate_data(self, plain_array(X), dtype=np.float32, reset=False)
        return self.net_.forward(X, device="cpu").numpy()


@as_network.register(RobustClassifier)
def _read_robust(model, *, input_shape=None):
    check_is_fitted(model)
    return model._network()


def _distinct(classes):
    """Return the parameter `classes` of `partial_fit` in order, each once, or raise."""
    try:
        return np.unique(classes)
    except (TypeError, ValueError):  # labels without an order, or ragged
        expectation = "labels of one kind, of shape (n_classes,)"
        raise ValueError(expected("classes", classes, expectation)) from None
