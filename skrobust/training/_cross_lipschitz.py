"""Cross-Lipschitz training: gradients of the logits that differ little between the classes."""

import torch

from skrobust._validation import check_real
from skrobust.exceptions import UnsupportedModelError
from skrobust.training._base import TrainingRegime

__all__ = ["CrossLipschitzTraining"]


class CrossLipschitzTraining(TrainingRegime):
    r"""Minimize the loss of the task + a weight x how much the gradients of the logits differ.

    With f_1, ..., f_K for the logits and gradients by the input, the second part is
    :math:`\frac{1}{n K^2} \sum_i \sum_{l, m} \| \nabla f_m(x_i) - \nabla f_l(x_i) \|_2^2`. Where
    these differences are small, so is what the gap between two logits can change near the input.

    Parameters
    ----------
    weight : float, default=0.03
        Of the second part. What is best depends on the data, and is chosen on held-out ones, as
        in a `~sklearn.model_selection.GridSearchCV` over ``training__weight``. Of 0.01, 0.03, 0.1
        and more, the default made digits most secure at a cost in accuracy below one point.

    Notes
    -----
    The module must be differentiable twice, in the sense of torch: piecewise linear ones are. A
    step costs about two backward passes for each class more. Where layers mix samples, as batch
    norm does in training, gradients are those of the sums over the batch.

    No property is trained for; one that the classifier has is not used.

    References
    ----------
    Hein and Andriushchenko, "Formal guarantees on the robustness of a classifier against
    adversarial manipulation", NIPS 2017, section 4.

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.training import CrossLipschitzTraining
    >>> X, y = load_digits(return_X_y=True)
    >>> model = RobustClassifier(
    ...     training=CrossLipschitzTraining(), max_epochs=5, random_state=0
    ... ).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.7
    True
    """

    def __init__(self, weight=0.03):
        self.weight = weight

    def check(self, property, X, n_classes=2):
        check_real("weight", self.weight, low=0)

    def loss(self, state, step):
        x = step.x.detach().requires_grad_()
        logits = step.module(x)
        # Before gradients are asked for, so that outputs of a wrong kind are refused by name.
        task = step.task_loss(logits)
        return task + self.weight * step.mean(cross_lipschitz(logits, x)), logits


def cross_lipschitz(logits, x):
    r"""Return :math:`K^{-2} \sum_{l, m} \| \nabla f_m(x) - \nabla f_l(x) \|_2^2` of each sample.

    Parameters
    ----------
    logits : Tensor of shape (n, K)
        With a history in `x`.
    x : Tensor of shape (n, n_features)

    Returns
    -------
    Tensor of shape (n,)
        With a history, too.
    """
    if not logits.requires_grad:
        raise UnsupportedModelError(
            "Got a module whose logits have no gradient, but CrossLipschitzTraining expects one "
            "that can be differentiated twice."
        )
    n_classes = logits.shape[1]
    # One backward pass a class. Batched by vmap, they take two thirds of the time in perceptrons
    # but more in convolutions, and not all that users write can be batched.
    gradients = [
        torch.autograd.grad(logits[:, k].sum(), x, create_graph=True, materialize_grads=True)[0]
        for k in range(n_classes)
    ]
    # The sum over all pairs is 2 K times that of the squared distances to the mean.
    gradients = torch.stack(gradients)
    deviations = gradients - gradients.mean(dim=0)
    return 2 / n_classes * deviations.square().sum(dim=(0, 2))
