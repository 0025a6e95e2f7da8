"""What all verifiers share."""

import time
from abc import ABC, abstractmethod

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skrobust._validation import (
    BY_LABEL,
    check_columns,
    check_labels_given,
    check_length,
    check_real,
    check_seed,
    sample_shape,
)
from skrobust.attacks import attack_and_confirm, confirm
from skrobust.graphs import read_graph
from skrobust.networks import as_model
from skrobust.properties import check_property
from skrobust.trees import check_tree_property
from skrobust.verification._evidence import check_evidence
from skrobust.verification._query import check_rows_of_logits
from skrobust.verification._recorders import make_recorder
from skrobust.verification._result import Reason, VerificationBuilder
from skrobust.verification._sets import within_set
from skrobust.verification._steps import Encoding, Step, decide_in_steps

__all__ = [
    "Stopwatch",
    "Verifier",
    "at_reference",
    "attacked",
    "decide_by_attack",
    "read_network",
]


class Verifier(BaseEstimator, ABC):
    """Base class: decides whether a property holds on the whole ball of each sample.

    Users call `verify`, which takes an estimator and arrays. The other methods take networks
    and tensors, and are what a verifier is made of: subclasses define `check` and `decide`;
    `accepts` and `encode` where they take less than piecewise linear networks and linear
    properties, or need the network in another form; and `steps` where they work in several.
    """

    kind = "search"

    @property
    def name(self):
        """What the verifier is called in results."""
        return type(self).__name__.lower()

    def verify(
        self, estimator, X, y=None, *, property, timeout=None, random_state=None, evidence=None
    ):
        """Decide a property of a fitted estimator around samples.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape (n_samples, n_features) or (n_samples, ``*input_shape``)
            Reference points, in the raw input space of the estimator.
        y : array-like of shape (n_samples,), default=None
            True labels, where the property needs them.
        property : RobustnessProperty
            In the raw input space of the estimator.
        timeout : float, default=None
            Seconds a sample; no limit beside the verifier's own if None.
        random_state : int, RandomState instance or None, default=None
            For attacks with random starts.
        evidence : str, path-like or None, default=None
            A folder for evidence: the network, and a file for each point that is decided, which
            ``python -m skrobust.evidence check FOLDER`` checks. "required" stores nothing, but
            counts as verified only what the checker accepts.

        Returns
        -------
        Verification

        Warns
        -----
        MissingEvidenceWarning
            If a verdict has no evidence, or a file cannot be written. Verdicts are as without.

        Raises
        ------
        UnsupportedModelError
            If the verifier cannot read the estimator, or the checker of evidence cannot.
        UnsupportedPropertyError
            If it cannot treat the property, or its norm.
        ValueError
            If `X` or `y` does not suit the estimator or the property.
        """
        self.check()
        check_property(property)
        check_evidence(evidence)
        if timeout is not None:
            check_real("timeout", timeout, low=0, closed="neither")
        check_columns(estimator, X)
        network = read_network(estimator, property, sample_shape(X))
        rows = network.check_rows(X)
        property.check(rows)
        labels = self._labels(network, property, y, len(rows))
        verifier = within_set(self, property)
        encoding = verifier.encode(network, property, rows.shape[1])
        seed = check_seed(random_state).randint(2**31 - 1)
        generator = torch.Generator(network.device).manual_seed(seed)
        x = network.rows(rows)
        options = {"timeout": timeout, "generator": generator}
        if evidence is None:
            return decide_in_steps(verifier.steps(encoding), x, labels, **options)
        recorder = make_recorder(evidence, network, property, rows.shape[1])
        steps = verifier.steps(encoding.with_proofs())
        result = decide_in_steps(steps, x, labels, recorder=recorder, **options)
        return recorder.finish(result)

    def _labels(self, network, property, y, n_samples):
        check_labels_given(y, BY_LABEL.format("property") if property.needs_labels else "")
        if y is None:
            return None
        check_length("y", y, n_samples)
        # Labels that nobody needs may be of classes that the estimator has never seen.
        return network.encode(y) if property.needs_labels else None

    @abstractmethod
    def check(self):
        """Validate the parameters; return self."""

    def accepts(self, network, property):
        """Refuse what the verifier cannot treat, before any work starts.

        Parameters
        ----------
        network : Model
        property : RobustnessProperty

        Raises
        ------
        UnsupportedModelError
            If the network is of another kind.
        UnsupportedPropertyError
            If the property, or its norm, is of another kind.
        """
        check_rows_of_logits(property, len(network.classes))

    def encode(self, network, property, n_features=None):
        """Return the `Encoding` of a network and a property, to ask for many points.

        It lives on the device of the network, where all points must lie too.

        Parameters
        ----------
        network : Model
        property : RobustnessProperty
        n_features : int, default=None
            Entries of a row, where the network does not know them.

        Returns
        -------
        Encoding
        """
        self.check()
        check_property(property)
        self.accepts(network, property)
        return Encoding(network, property, self._graph(network, n_features))

    def _graph(self, network, n_features):
        return read_graph(network, n_features)

    def steps(self, encoding):
        """Return what is to be asked of points, one after the other, as a list of `Step`.

        Parameters
        ----------
        encoding : Encoding
            As `encode` has made it.
        """
        return [Step(self.name, encoding, self.decide, self.kind)]

    @abstractmethod
    def decide(self, encoding, x, labels=None, *, timeout=None, generator=None):
        """Decide the property around a batch of rows.

        Parameters
        ----------
        encoding : Encoding
        x : Tensor of shape (n, n_features)
            Reference points, in the dtype and on the device of the network.
        labels : Tensor of shape (n,), default=None
            True class indices, where the property needs them.
        timeout : float, default=None
            Seconds a point; no limit if None.
        generator : torch.Generator, default=None
            Source of randomness; torch's own one if None.

        Returns
        -------
        Verification
        """


def read_network(estimator, property, input_shape=None):
    """Return an estimator as a `Model` for verifiers: a `BlackBox` where it is no `Network`."""
    check_tree_property(estimator, property)
    return as_model(
        estimator, property.needed_outputs, needs_gradient=False, input_shape=input_shape
    )


def decide_by_attack(attack, encoding, x, labels=None, *, timeout=None, generator=None):
    """Return what the reference points and an attack tell; it runs to its end in any case."""
    verdicts = at_reference(encoding.target(x, labels))
    attacked(attack, verdicts, encoding, x, labels, generator)
    return verdicts.result()


def at_reference(target):
    """Return the `VerificationBuilder` of what the reference points alone tell.

    Where the property is broken there, it is falsified; where it is not, and no feature of the
    point can move, it is verified, since the ball holds no other point.
    """
    # The reference points lie in their balls as they are.
    broken = confirm(target, target.x, project=False).broken
    verdicts = VerificationBuilder(target.x)
    verdicts.falsify(np.arange(len(target.x)), target.x, broken)
    property, center = target.property, target.x.double()
    # As float64 from the start: torch would make a Python float a float32.
    exact = {"dtype": torch.float64, "device": center.device}
    down, up = (torch.as_tensor(s, **exact) > 0 for s in property.sides(center.shape[1]))
    falls, rises = down.expand_as(center), up.expand_as(center)
    bounds = property.box()
    if bounds is not None:
        low, high = (torch.as_tensor(bound, **exact) for bound in bounds)
        falls, rises = falls & (low < center), rises & (high > center)
    fixed = (~(falls | rises).any(dim=1) & ~broken).cpu().numpy()
    return verdicts.prove(np.flatnonzero(fixed))


def attacked(attack, verdicts, encoding, x, labels=None, generator=None):
    """Attack the points that are still unknown, and enter the counterexamples.

    Parameters
    ----------
    attack : Attack
    verdicts : VerificationBuilder
        Of the rows of `x`; changed.
    encoding : Encoding
    x : Tensor of shape (n, n_features)
    labels : Tensor of shape (n,), default=None
    generator : torch.Generator, default=None
    """
    index, watch = verdicts.undecided_index, Stopwatch()
    if len(index) == 0:
        return
    target = encoding.target(x, labels)[torch.as_tensor(index, device=x.device)]
    outcome = attack_and_confirm(attack, target, generator)
    verdicts.falsify(index, outcome.points, outcome.broken)
    verdicts.seconds[index] += watch.elapsed / len(index)


class Stopwatch:
    """Wall time and work since it was made, against limits.

    Work is counted in domains, by whoever does it: what a limit on it leaves open is the same on
    any machine.

    Parameters
    ----------
    timeout : float or None
        Seconds; no limit if None.
    max_domains : int or None
        Domains; no limit if None.
    parent : Stopwatch or None
        Whose work it is, too.
    """

    def __init__(self, timeout=None, max_domains=None, parent=None):
        self.start = time.perf_counter()
        self.timeout = float("inf") if timeout is None else timeout
        self.max_domains = float("inf") if max_domains is None else max_domains
        self.parent, self.n_domains = parent, 0

    @property
    def elapsed(self):
        """Seconds since the start."""
        return time.perf_counter() - self.start

    def count(self, n_domains):
        """Count work."""
        self.n_domains += n_domains
        if self.parent is not None:
            self.parent.count(n_domains)

    def part(self, seconds=float("inf"), max_domains=float("inf")):
        """Return a new watch for that much from now on, or for what is left if less."""
        limits = min(seconds, self.seconds_left), min(max_domains, self.domains_left)
        return Stopwatch(*limits, parent=self)

    @property
    def domains_left(self):
        """Domains until the limit, not below 0."""
        return max(0, self.max_domains - self.n_domains)

    @property
    def seconds_left(self):
        """Seconds until the limit, not below 0."""
        return max(0.0, self.timeout - self.elapsed)

    @property
    def left(self):
        """Seconds until the limit, and 0 where no work may be done any more."""
        return self.seconds_left if self.domains_left else 0.0

    @property
    def reason(self):
        """Why nothing is left, as a `Reason`."""
        return Reason.TIME_OUT if self.domains_left else Reason.WORK_LIMIT
