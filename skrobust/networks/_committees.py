"""Estimators that ask several networks: averages of probabilities, and one network a class."""

import numpy as np
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.utils.validation import check_is_fitted
from torch.overrides import handle_torch_function, has_torch_function

from skrobust._validation import kind_of
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks._base import Network, as_network
from skrobust.networks._rows import named_rows, without_names

__all__ = []

_LEAST = float(np.log(np.finfo(np.float64).tiny))  # of the logarithm of a probability


class _Member(torch.nn.Module):
    """A network on some of the columns, in its own precision; its logits are float64."""

    def __init__(self, network, columns=None):
        super().__init__()
        self.module, self.dtype, self.device = network.module, network.dtype, network.device
        self.register_buffer("columns", None if columns is None else torch.as_tensor(columns))

    def forward(self, x):
        own = x if self.columns is None else x[:, self.columns]
        return self.module(own.to(self.device, self.dtype)).to(x.device, torch.float64)


class _MeanProbabilities(torch.nn.Module):
    """The logarithm of a weighted mean of the softmax of members.

    These are logits: their softmax is the mean.

    Parameters
    ----------
    members : list of _Member
    places : list of list of int
        The class of each output of each member.
    weights : array-like of shape (n_members,)
        Positive.
    n_classes : int
    """

    def __init__(self, members, places, weights, n_classes):
        super().__init__()
        self.members = torch.nn.ModuleList(members)
        # Tuples, which a fingerprint holds.
        self.places, self.n_classes = tuple(map(tuple, places)), n_classes
        shares = torch.as_tensor(np.asarray(weights, dtype=np.float64))
        self.register_buffer("log_shares", (shares / shares.sum()).log())

    def forward(self, x):
        return mean_of_softmax(x, self)

    def _mean(self, x):
        parts = []
        for member, places, share in zip(self.members, self.places, self.log_shares, strict=True):
            log_p = member(x).log_softmax(dim=1) + share.to(x.device)
            spread = log_p.new_full((len(x), self.n_classes), _LEAST)
            parts.append(spread.index_copy(1, torch.tensor(places, device=x.device), log_p))
        return torch.stack(parts).logsumexp(dim=0)


def mean_of_softmax(x, average):
    """Return what a `_MeanProbabilities` makes of rows.

    To what follows the functions of torch, as readers of networks do, this is a single one.
    """
    if has_torch_function((x,)):
        return handle_torch_function(mean_of_softmax, (x,), x, average)
    return average._mean(x)


class _Scores(torch.nn.Module):
    """The score of the second class of each of several members of two classes.

    Parameters
    ----------
    members : list of _Member
    squashed : bool
        Whether the score is the probability; else it is the difference of the two logits.
    threshold : float or None
        Of a single member: logit of the first class.
    """

    def __init__(self, members, squashed, threshold):
        super().__init__()
        self.members = torch.nn.ModuleList(members)
        self.squashed, self.threshold = squashed, threshold
        self.register_buffer("difference", torch.tensor([[-1.0, 1.0]], dtype=torch.float64))

    def forward(self, x):
        scores = [torch.nn.functional.linear(m(x), self.difference) for m in self.members]
        scores = torch.cat(scores, dim=1)
        if self.squashed:
            scores = torch.sigmoid(scores)
        if self.threshold is None:
            return scores
        return torch.cat([0.0 * scores + self.threshold, scores], dim=1)


@as_network.register
def _(model: VotingClassifier, *, input_shape=None):
    check_is_fitted(model)
    if model.voting != "soft":
        raise UnsupportedModelError(
            "Got a VotingClassifier with voting='hard', but expected 'soft': counts of votes have "
            "no gradient. Sampling (ConstraintAccuracy) works with any classifier."
        )
    weights = np.ones(len(model.estimators_))
    if model.weights is not None:
        pairs = zip(model.estimators, model.weights, strict=True)
        weights = np.array([weight for (_, part), weight in pairs if part != "drop"])
    # Members are fitted on the numbers of the classes.
    return _average(model, model.estimators_, weights, input_shape=input_shape)


@as_network.register
def _(model: BaggingClassifier, *, input_shape=None):
    check_is_fitted(model)
    columns = [np.asarray(chosen) for chosen in model.estimators_features_]
    everything = np.arange(model.n_features_in_)
    columns = [None if np.array_equal(c, everything) else c for c in columns]
    weights = np.ones(len(model.estimators_))
    return _average(model, model.estimators_, weights, columns, input_shape=input_shape)


def _average(model, estimators, weights, columns=None, *, input_shape):
    columns = [None] * len(estimators) if columns is None else columns
    if (weights < 0).any():
        raise UnsupportedModelError(
            f"Got {kind_of(model)} with the weights {weights.tolist()}, but expected none below "
            "0: what is subtracted leaves no probabilities."
        )
    kept = np.flatnonzero(weights).tolist()
    networks = [_network_of(estimators[i], model, columns[i], input_shape) for i in kept]
    for i, network in zip(kept, networks, strict=True):
        if not network.probabilistic:
            raise UnsupportedModelError(
                f"Got {kind_of(model)} with the member {type(estimators[i]).__name__}, but "
                "expected classifiers whose probabilities are the softmax of their scores: what "
                "it averages are these."
            )
    members = [_Member(n, columns[i]) for i, n in zip(kept, networks, strict=True)]
    places = [np.asarray(network.classes).astype(int).tolist() for network in networks]
    module = _MeanProbabilities(members, places, weights[kept], len(model.classes_))

    def replay(X):
        with without_names():
            p = np.asarray(model.predict_proba(named_rows(model, X)), dtype=np.float64)
        return torch.as_tensor(p).clamp(min=np.finfo(np.float64).tiny).log()

    return _committee(model, networks, module, replay, probabilistic=True)


@as_network.register
def _(model: OneVsRestClassifier, *, input_shape=None):
    check_is_fitted(model)
    if model.multilabel_:
        raise UnsupportedModelError(
            "Got a OneVsRestClassifier fitted on several labels a sample, but expected one class."
        )
    networks = [_network_of(e, model, None, input_shape) for e in model.estimators_]
    # As `predict` has it: probabilities only where there are no scores.
    squashed = not hasattr(model, "decision_function")
    threshold = 0.5 if squashed else 0.0
    is_single = len(networks) == 1
    members = [_Member(network) for network in networks]
    module = _Scores(members, squashed, threshold if is_single else None)

    def replay(X):
        X = named_rows(model, X)
        with without_names():
            if squashed:
                scores = [estimator.predict_proba(X)[:, 1] for estimator in model.estimators_]
            else:
                scores = [estimator.decision_function(X) for estimator in model.estimators_]
        scores = np.array(scores, dtype=np.float64).T
        if is_single:
            scores = np.hstack([np.full_like(scores, threshold), scores])
        return torch.as_tensor(scores)

    softmax = is_single and not squashed and networks[0].probabilistic
    return _committee(model, networks, module, replay, probabilistic=softmax)


@as_network.register
def _(model: OneVsOneClassifier, *, input_shape=None):
    raise UnsupportedModelError(
        "Got a OneVsOneClassifier, but expected a OneVsRestClassifier: one against one counts the "
        "votes of pairs, and counts have no gradient. Sampling (ConstraintAccuracy) works with "
        "any classifier."
    )


@as_network.register
def _(model: CalibratedClassifierCV, *, input_shape=None):
    raise UnsupportedModelError(
        f"Got a CalibratedClassifierCV with method={model.method!r}, but expected the classifier "
        "that it calibrates: it maps the score of each class by a regression of its own, and "
        "divides by their sum, which no network here does. Give its estimator, with its own "
        "predictions; sampling (ConstraintAccuracy) works with the calibrated one."
    )


def _network_of(estimator, model, columns, input_shape):
    """Return the network of a member; the message of a refusal names whose member it is."""
    try:
        network = as_network(estimator, input_shape=input_shape if columns is None else None)
    except UnsupportedModelError as error:
        message = f"Got {kind_of(model)} with a member that is no network. {error}"
        raise UnsupportedModelError(message) from error
    if network.categories and columns is not None:
        raise UnsupportedModelError(
            f"Got {kind_of(model)} of pipelines that encode categories, each on other columns, "
            "but expected the encoder in front of it, or max_features=1.0."
        )
    return network


def _committee(model, networks, module, replay, probabilistic):
    dtypes = {network.dtype for network in networks}
    categories = {}
    for network in networks:
        for column, known in network.categories.items():
            others = categories.get(column, known)
            categories[column] = np.intersect1d(known, others)
    return Network(
        module,
        model.classes_,
        getattr(model, "n_features_in_", networks[0].n_features),
        replay,
        probabilistic=probabilistic,
        dtype=dtypes.pop() if len(dtypes) == 1 else torch.float64,
        categories=categories,
    )
