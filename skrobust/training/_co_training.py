"""Co-training for large margins: a classifier and a generator of its adversarial examples."""

import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from skrobust._validation import (
    call_of_user,
    check_bounds,
    check_instance,
    check_real,
    check_within_bounds,
    expected,
)
from skrobust.exceptions import DivergedTrainingError
from skrobust.networks import check_logits, evaluation_mode
from skrobust.training._base import TrainingRegime
from skrobust.training._divergence import cross_entropy
from skrobust.training._generators import (
    RowGenerator,
    check_generator,
    check_points,
    made_generator,
)
from skrobust.training._hook import TrainingFit

__all__ = ["MarginCoTraining"]

_DIVERGED = "The {} of the generator became {}. Try a smaller generator_lr, or scaled inputs."


@dataclass(eq=False)
class _Pair:
    """The generator beside the classifier, and where the two are in their alternation."""

    given: tuple  # what generator and optimizer were made of
    network: RowGenerator
    optimizer: torch.optim.Optimizer
    fit: TrainingFit | None
    order: tuple = ()  # the generator's own batches of this epoch, as rows of `fit.X`
    place: tuple | None = None  # epoch and batch of the classifier's last step
    due: torch.Tensor | None = None  # the generator's batch of the same place, while not used


class MarginCoTraining(TrainingRegime):
    r"""Train a classifier and a generator of its adversarial examples in turn, for large margins.

    The generator g makes of each input a point near it that has another label. With
    :math:`\hat f` for the probabilities of the classifier and :math:`x^* = g(x)`, the classifier
    makes steps on the loss of the task *minus* `weight` times

    .. math:: R = \frac{1}{n} \sum_i
        \frac{\|x_i - x_i^*\|_2}{\max(\mathrm{CE}(\hat f(x_i), \hat f(x_i^*)), \mathrm{floor})}

    which is large where it takes long distances to change the outputs. Each step is followed by
    one of the generator, on a batch of its own order of the data, that lowers the mean of
    :math:`\frac{1}{2} \|g(x) - x\|_2^2 + \max(\hat f_c(g(x)) - \hat f_j(g(x)), 0)`, with c for the
    classifier's own label of x, and j for that of the second highest output at g(x).

    Parameters
    ----------
    weight : float, default=0.03
        Of R (:math:`\lambda` in the paper). What is best depends on the data and on the units of
        distances. The paper takes the one whose accuracy is closest to that of plain training; a
        `~sklearn.model_selection.GridSearchCV` over ``training__weight`` gives the accuracies on
        held-out data, and a callable `refit` can take that one. Of 0.001 to 0.5, values near the
        default gave held-out digits the largest margins at a cost in accuracy of one or two
        points.
    floor : float, default=0.1
        Of the cross-entropy between the outputs at x and at :math:`x^*`. Without one, R would have
        no limit. A pair of outputs that agree better than that is as good as it can be: it adds
        nothing to the gradient.
    generator : None, torch.nn.Module, or callable, default=None
        From inputs to points of the same shape: (n, n_features), or (n, *input_shape)
        where the classifier has an `input_shape`. A callable makes it from the shape of one
        input, a tuple; a module's own weights are the start of each fit, which trains a copy.
        None is what adds to the input the outputs of a network, at first 0: a perceptron with two
        hidden layers of 256 units; for inputs of three axes (channels, height, width), two
        convolutions of stride 2 with 16 and 32 channels take the place of the first of them.
    generator_optimizer : type, default=torch.optim.Adam
        Optimizer class of the generator, which is given its parameters and `lr`.
    generator_lr : float, default=0.005
        Learning rate of the generator.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Valid domain of the inputs, to which points of the generator are cut.

    Notes
    -----
    The trained generator is the classifier's ``companion_`` after `fit` and `partial_fit`, in
    evaluation mode and on the CPU: a `torch.nn.Module` from rows to rows inside `bounds`. It goes
    into pickles and copies. In `partial_fit` the generator goes on where the last call ended,
    unless the classifier was copied or unpickled since, or `generator` or `generator_optimizer`
    is another one: then it is a new one.

    The paper leaves some things open. They are read as follows:

    - :math:`x^*` is what the generator makes, not pulled to the boundary: the generator's own loss
      draws it there from both sides.
    - Every point counts in R, also one that has the label of its input. Its distance is no margin,
      but the classifier does well to keep the label up to there: R asks for outputs at
      :math:`x^*` like those at x, which the floor limits.
    - The sign of R is that of a reward, as the loss in equation 7 has it.
    - The cross-entropy is :math:`-\sum_k \hat f_k(x) \log \hat f_k(x^*)`, and R has a gradient
      through both outputs. The distance has none: the generator is fixed in a step of the
      classifier, and the classifier in a step of the generator.
    - The norm of the generator's loss is Euclidean, like that of the distance.
    - The first step is the classifier's, and the last one the generator's. Both networks start
      anew in each `fit`, and training ends after `max_epochs`. The generator is in training mode
      throughout; the classifier is in evaluation mode where it judges the generator's points.
    - The weights of samples multiply the terms of both losses.

    By the generator's loss, another label is worth a distance of :math:`\sqrt 2` at most. Where
    margins are larger than that, it learns to leave inputs as they are, and R says little.

    No property is trained for; one that the classifier has is not used.

    References
    ----------
    Tibo, Jaeger, Larsen, "A general framework for defining and optimizing robustness",
    arXiv:2006.11122, section 4.1 (the generator's loss), Algorithm 1, equations 7 and 12.

    Examples
    --------
    >>> import torch
    >>> from skrobust import RobustClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.training import MarginCoTraining
    >>> X, y = load_digits(return_X_y=True)
    >>> model = RobustClassifier(
    ...     training=MarginCoTraining(), max_epochs=10, random_state=0
    ... ).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.8
    True

    Points that the generator makes of new images, many of which have another label:

    >>> with torch.no_grad():
    ...     points = model.companion_(torch.tensor(X[1000:], dtype=torch.float32)).numpy()
    >>> bool((model.predict(points) != model.predict(X[1000:])).mean() > 0.25)
    True
    """

    def __init__(
        self,
        weight=0.03,
        *,
        floor=0.1,
        generator=None,
        generator_optimizer=torch.optim.Adam,
        generator_lr=0.005,
        bounds=(0.0, 1.0),
    ):
        self.weight = weight
        self.floor = floor
        self.generator = generator
        self.generator_optimizer = generator_optimizer
        self.generator_lr = generator_lr
        self.bounds = bounds

    def check(self, property, X, n_classes=2):
        check_real("weight", self.weight, low=0)
        # Torch computes with both in the float32 of the networks.
        highest = float(np.finfo(np.float32).max)
        check_real("floor", self.floor, low=0, high=highest, closed="right")
        check_generator(self.generator)
        if not callable(self.generator_optimizer):
            expectation = "an optimizer class, such as torch.optim.Adam"
            raise TypeError(expected("generator_optimizer", self.generator_optimizer, expectation))
        check_real("generator_lr", self.generator_lr, low=0, high=highest, closed="right")
        check_within_bounds(X, check_bounds(self.bounds, X.shape[1]))

    def start(self, fit):
        shape = fit.input_shape or (fit.X.shape[1],)
        given = shape, self.generator, self.generator_optimizer
        last = fit.previous
        goes_on = isinstance(last, _Pair) and last.given == given
        generator = last.network.generator if goes_on else made_generator(self.generator, shape)
        generator = generator.to(fit.device).train()
        check_points(generator, self.generator, fit.X[:2].to(fit.device).unflatten(1, shape))
        bounds = check_bounds(self.bounds, fit.X.shape[1])
        network = RowGenerator(generator, shape, bounds).to(fit.device)
        optimizer = last.optimizer if goes_on else self._optimizer(network)
        for group in optimizer.param_groups:
            group["lr"] = float(self.generator_lr)
        return _Pair(given, network, optimizer, fit)

    def _optimizer(self, network):
        make = partial(self.generator_optimizer, lr=float(self.generator_lr))
        parameters = [p for p in network.parameters() if p.requires_grad]
        optimizer = call_of_user("generator_optimizer", make, parameters)
        example = "one that torch.optim.Adam makes"
        return check_instance(
            "generator_optimizer(...)", optimizer, torch.optim.Optimizer, example
        )

    def loss(self, state, step):
        place = step.epoch, step.batch
        if place != state.place:  # else the optimizer asks for the loss again within one step
            self._train_generator(state)
            if state.place is None or step.epoch != state.place[0]:
                state.order = _shuffled(state.fit, step.n_steps)
            state.place, state.due = place, state.order[step.batch]
        with torch.no_grad():
            points = state.network(step.x)
        # One pass over both, so that batch statistics are shared.
        outputs = step.module(torch.cat([step.x, points]))
        logits, others = check_logits(outputs, 2 * len(points), when="in training mode").chunk(2)
        distance = torch.linalg.vector_norm(points - step.x, dim=1)
        if not torch.isfinite(distance).all():
            raise DivergedTrainingError(_DIVERGED.format("points", "NaN or infinite"))
        ratio = margin_ratio(distance, logits, others, self.floor)
        return step.task_loss(logits) - self.weight * step.mean(ratio), logits

    def finish(self, state):
        self._train_generator(state)
        # The state is kept for the next call, which brings data of its own.
        state.fit, state.order = None, ()
        network = copy.deepcopy(state.network).cpu().eval()
        if not all(torch.isfinite(p).all() for p in network.parameters()):
            raise DivergedTrainingError(_DIVERGED.format("weights", "NaN or infinite"))
        network.zero_grad()
        return network

    def _train_generator(self, state):
        """Make the step of the generator that follows the classifier's last one."""
        if state.due is None:
            return
        fit, index, state.due = state.fit, state.due, None
        x = fit.X[index].to(fit.device)
        weight = None if fit.sample_weight is None else fit.sample_weight[index].to(fit.device)
        parameters = [p for p in state.network.parameters() if p.requires_grad]

        def closure():
            with evaluation_mode(fit.module):
                losses = generator_loss(fit.module, x, state.network(x))
            loss = (losses if weight is None else weight * losses).mean()
            if not torch.isfinite(loss):
                raise DivergedTrainingError(_DIVERGED.format("loss", loss.item()))
            # Not backward: the classifier's gradients are those of its own step.
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            return loss.detach()

        state.optimizer.step(closure)


def _shuffled(fit, n_steps):
    """Return the rows of `n_steps` batches, in an order of their own."""
    device = "cpu" if fit.generator is None else fit.generator.device
    order = torch.randperm(len(fit.X), generator=fit.generator, device=device)
    return order.cpu().tensor_split(n_steps)


def margin_ratio(distance, logits, others, floor):
    """Return distance / max(cross-entropy of two outputs, floor) of each sample, of shape (n,).

    Parameters
    ----------
    distance : Tensor of shape (n,)
        Between the two points.
    logits, others : Tensor of shape (n, n_classes)
        Outputs at the first and at the second point.
    floor : float
        Above 0.
    """
    return distance / cross_entropy(logits, others).clamp(min=floor)


def generator_loss(module, x, points):
    """Return what a generator pays for each of its points, of shape (n,).

    That is half the squared distance to the input, and by how much the input's own label is
    ahead at the point, in probability. Where another label is the first, it is not ahead.

    Parameters
    ----------
    module : callable
        The classifier, from rows to logits.
    x : Tensor of shape (n, n_features)
        Inputs.
    points : Tensor of shape (n, n_features)
        One for each input.
    """
    with torch.no_grad():
        own = module(x).argmax(dim=1, keepdim=True)
    probabilities = torch.softmax(module(points), dim=1)
    second = probabilities.topk(2, dim=1).indices[:, 1:]
    lead = (probabilities.gather(1, own) - probabilities.gather(1, second)).squeeze(1)
    return 0.5 * (points - x).square().sum(dim=1) + lead.clamp(min=0)
