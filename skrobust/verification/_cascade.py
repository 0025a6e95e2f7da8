"""Several stages in a row: what is cheap first, what is complete for what is left."""

from dataclasses import dataclass, replace
from functools import partial
from os import PathLike

from skrobust._parameters import NamedParts
from skrobust._validation import check_instance, check_real, expected, kind_of
from skrobust.attacks import PGD, Attack
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import BlackBox, as_network
from skrobust.properties import check_property
from skrobust.verification._base import Verifier, decide_by_attack
from skrobust.verification._bounds import Bounds
from skrobust.verification._cross_check import CrossCheck
from skrobust.verification._exact import Exact
from skrobust.verification._steps import Encoding, Step, decide_in_steps, least
from skrobust.verification._trees import TreeVerifier

__all__ = ["Cascade"]


@dataclass(frozen=True, eq=False)
class CascadeEncoding(Encoding):
    """A network and a property, read by each stage; the graph is None.

    Parameters
    ----------
    stages : dict of str to Attack or Verifier
    parts : dict of str to Encoding
    check : Encoding or None
        Of the cross-check.
    """

    stages: dict
    parts: dict
    check: Encoding | None

    def with_proofs(self):
        parts = {name: part.with_proofs() for name, part in self.parts.items()}
        return replace(self, parts=parts, keeps_proofs=True)


class Cascade(NamedParts, Verifier):
    """Ask one stage after the other; each is asked for what those before it left open.

    Parameters
    ----------
    stages : list of Attack and Verifier, or None, default=None
        None is ``[PGD(n_restarts=3), Bounds(), Exact()]`` for networks: cheap falsification,
        cheap proof, the complete method. For trees and ensembles of trees it is
        ``[TreeVerifier()]``. A stage is called by the name of its class in small letters, with
        a number where there are several of one class; so ``set_params(exact__batch_size=64)``
        reaches a parameter of a stage, and ``set_params(exact=Marabou())`` replaces one.
    timeout : float or None, default=60.0
        Seconds a sample, all stages together; no limit if None. The cross-check has as much.
    cross_check : Verifier or None, default=None
        A second, complete verifier, asked for every point. What the stages leave open, it may
        decide. Where one claims a proof, and the other has found a counterexample, the point is
        falsified, since counterexamples are confirmed by the estimator itself; the reason is
        then `Reason.DISAGREEMENT`, a note says who said what, and a warning is given.
    query_folder : str, path-like or None, default=None
        Where queries of a disagreement are saved, as ONNX and VNNLIB, for a report to the
        verifier's authors; None is a new temporary folder. The note names it.

    Notes
    -----
    An attack only looks for counterexamples, `Bounds` for proofs; but each stage first looks at
    the reference point itself, which may decide either way (a misclassified point, epsilon = 0).
    With a complete verifier as the last stage a point stays unknown only where that one ran out
    of time or failed. Attacks run to their end, whatever the time limit.

    A proof is about the real numbers that the network's weights define; that the estimator
    rounds its input to float32 is accounted for, how it rounds on the way is not. Every
    counterexample is confirmed by the estimator as it computes.

    Examples
    --------
    >>> from sklearn.neural_network import MLPClassifier
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.verification import Cascade
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = MLPClassifier(5, solver="lbfgs", random_state=0).fit(X, y)
    >>> result = Cascade().verify(model, X, y, property=ClassificationRobustness(0.15))
    >>> result.verdicts.tolist()
    ['verified', 'falsified', 'falsified', 'verified']
    >>> result.decided_by.tolist()
    ['bounds', 'pgd', 'pgd', 'bounds']
    """

    _parts_name = "stages"

    def __init__(self, stages=None, *, timeout=60.0, cross_check=None, query_folder=None):
        self.stages = stages
        self.timeout = timeout
        self.cross_check = cross_check
        self.query_folder = query_folder

    def _default_list(self):
        return [PGD(n_restarts=3), Bounds(), Exact()]

    def check(self):
        self._check_parts((Attack, Verifier), "PGD() or Exact()")
        if self.timeout is not None:
            check_real("timeout", self.timeout, low=0, closed="neither")
        if self.cross_check is not None:
            check_instance("cross_check", self.cross_check, Verifier, "Exact()").check()
        if not isinstance(self.query_folder, str | PathLike | None):
            raise TypeError(expected("query_folder", self.query_folder, "a path, or None"))
        return self

    # -- deciding --

    def encode(self, network, property, n_features=None):
        """Return the `Encoding` of each stage in one; see `Verifier.encode`."""
        self.check()
        check_property(property)
        stages = self._stages(network, property)
        for name, stage in stages.items():
            if isinstance(stage, Attack) and stage.needs_gradient:
                _check_gradients(network, name)
        # Each stage reads the network for itself, in a millisecond for 784-100-10: to share the
        # graph, `encode` would need an argument that every verifier of a user has to know.
        parts = {
            name: Encoding(network, property, None)
            if isinstance(stage, Attack)
            else stage.encode(network, property, n_features)
            for name, stage in stages.items()
        }
        check = None
        if self.cross_check is not None:
            check = self.cross_check.encode(network, property, n_features)
        return CascadeEncoding(network, property, None, stages, parts, check)

    def _stages(self, network, property):
        """Return a dict of names to stages."""
        if self.stages is not None or not isinstance(network, BlackBox):
            return self.named_parts
        try:
            TreeVerifier().accepts(network, property)
        except UnsupportedModelError as error:
            _refuse(network, str(error))
        return {"treeverifier": TreeVerifier()}

    def steps(self, encoding):
        """Return the steps of the stages, one after the other, and the cross-check's.

        What a stage does of itself before what it is for is left out where an earlier stage has
        done the same kind: `Exact` attacks nothing after an attack, unless it is given one, and
        computes no bounds after `Bounds`.
        """
        steps, done = [], set()
        for name, stage in encoding.stages.items():
            own = _steps_of(name, stage, encoding.parts[name])
            steps += [step for step in own if not (step.is_optional and step.kind in done)]
            done |= {step.kind for step in own}
        if self.cross_check is not None:
            steps.append(
                CrossCheck(
                    self.cross_check.name,
                    encoding.check,
                    self.cross_check.decide,
                    chunk_size=self.cross_check.steps(encoding.check)[-1].chunk_size,
                    query_folder=self.query_folder,
                )
            )
        return [replace(step, timeout=least(step.timeout, self.timeout)) for step in steps]

    def decide(self, encoding, x, labels=None, *, timeout=None, generator=None):
        steps = self.steps(encoding)
        return decide_in_steps(steps, x, labels, timeout=timeout, generator=generator)


def _steps_of(name, stage, encoding):
    if isinstance(stage, Attack):
        return [Step(name, encoding, partial(decide_by_attack, stage), "attack")]
    steps = stage.steps(encoding)
    # A cascade in a cascade has stages with names of their own.
    return [replace(step, name=name) if step.name == stage.name else step for step in steps]


def _check_gradients(network, name):
    if isinstance(network, BlackBox):
        _refuse(network, f"The stage {name!r} follows gradients.")


def _refuse(black_box, why):
    """Raise an error that says why an estimator is no network, and what else is in the way."""
    try:
        as_network(black_box.estimator)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{error} {why}") from None
    # A network, but not for what the property asks of it.
    raise UnsupportedModelError(
        f"Got {kind_of(black_box.estimator)}, whose outputs are not read as a network for "
        f"this property. {why}"
    )
