"""Several stages in a row: what is cheap first, what is complete for what is left."""

import tempfile
import warnings
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from skrobust._validation import check_instance, check_real, expected
from skrobust.attacks import PGD, Attack
from skrobust.exceptions import SolverDisagreementWarning, UnsupportedModelError
from skrobust.networks import BlackBox, Model, as_network
from skrobust.verification._base import Encoding, Step, Verifier, at_reference, attacked
from skrobust.verification._bounds import Bounds
from skrobust.verification._exact import Exact
from skrobust.verification._result import Verdict, Verification
from skrobust.verification._trees import TreeVerifier
from skrobust.verification._vnnlib import export_query

__all__ = ["Cascade"]


@dataclass(frozen=True, eq=False)
class _CascadeEncoding(Encoding):
    """Also holds a `Step` for each stage, and one for the cross-check or None."""

    steps: list
    check: Step | None


class Cascade(Verifier):
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
        Seconds that a stage may spend on one point; no limit if None.
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
    >>> from skrobust.networks import as_network
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.verification import Cascade
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = MLPClassifier(5, solver="lbfgs", random_state=0).fit(X, y)
    >>> network = as_network(model)
    >>> x, labels = network.rows(X), network.encode(y)
    >>> found = Cascade().verify(network, ClassificationRobustness(0.15), x, labels)
    >>> found.verdicts.tolist()
    ['verified', 'falsified', 'falsified', 'verified']
    >>> found.decided_by.tolist()
    ['bounds', 'pgd', 'pgd', 'bounds']
    """

    def __init__(self, stages=None, *, timeout=60.0, cross_check=None, query_folder=None):
        self.stages = stages
        self.timeout = timeout
        self.cross_check = cross_check
        self.query_folder = query_folder

    # -- parameters --

    def get_params(self, deep=True):
        """Return the parameters; with `deep` also the stages and theirs, by their names."""
        params = super().get_params(deep=deep)
        if deep:
            for name, stage in _named(self.stages).items():
                params[name] = stage
                if hasattr(stage, "get_params"):
                    nested = stage.get_params(deep=True)
                    params |= {f"{name}__{key}": value for key, value in nested.items()}
        return params

    def set_params(self, **params):
        """Set parameters, also a stage or its parameters, by name; return self.

        Where `stages` is None and one of its stages for networks is named, they are written out.
        """
        if "stages" in params:
            self.stages = params.pop("stages")
        stages = list(_network_stages() if self.stages is None else self.stages)
        reached = False
        for place, name in enumerate(_named(stages)):
            if name in params:
                stages[place], reached = params.pop(name), True
            nested = {key: key.removeprefix(f"{name}__") for key in params}
            nested = {short: params.pop(key) for key, short in nested.items() if short != key}
            if nested:
                stages[place].set_params(**nested)
                reached = True
        if reached:
            self.stages = stages
        return super().set_params(**params)

    def check(self):
        if self.stages is not None:
            expectation = "a list of attacks and verifiers, such as [PGD(), Bounds(), Exact()]"
            if not isinstance(self.stages, list | tuple) or not self.stages:
                raise TypeError(expected("stages", self.stages, expectation))
            for stage in self.stages:
                if not isinstance(stage, Attack | Verifier):
                    raise TypeError(expected("stages", self.stages, expectation))
                stage.check()
        if self.timeout is not None:
            check_real("timeout", self.timeout, low=0, closed="neither")
        if self.cross_check is not None:
            check_instance("cross_check", self.cross_check, Verifier, "Exact()").check()
        if not isinstance(self.query_folder, str | PathLike | None):
            raise TypeError(expected("query_folder", self.query_folder, "a path, or None"))
        return self

    # -- deciding --

    def encode(self, network, property, n_features=None):
        """Return the `Encoding` for all stages; see `Verifier.encode`."""
        self.check()
        if not isinstance(network, Model):  # an estimator of trees
            network = BlackBox(network)
        steps, seen = [], set()
        for name, stage in _named(self._stages(network, property)).items():
            if isinstance(stage, Attack):
                if stage.needs_gradient and isinstance(network, BlackBox):
                    _refuse(network, f"the stage {name!r} follows gradients")
                state = Encoding(network, property, None)
                decide, is_slow = partial(_attack, stage), False
            else:
                state = stage.encode(network, property, n_features)
                # Twice the same cheap work would be in vain.
                is_open = {"attack", "bounds"} <= seen
                decide = stage.decide_open if is_open else stage.decide
                is_slow = stage.is_slow(state)
            steps.append(Step(name, state, decide, is_slow))
            seen |= {"attack"} if isinstance(stage, Attack) else set()
            seen |= {"bounds"} if isinstance(stage, Bounds) else set()
        check = None
        if self.cross_check is not None:
            other = self.cross_check
            state = other.encode(network, property, n_features)
            check = Step(other.name, state, other.decide, other.is_slow(state))
        return _CascadeEncoding(network, property, None, steps, check)

    def _stages(self, network, property):
        if self.stages is not None:
            return self.stages
        if not isinstance(network, BlackBox):
            return _network_stages()
        try:
            TreeVerifier().accepts(network, property)
        except UnsupportedModelError:
            _refuse(network, "it is no estimator of trees either")
        return [TreeVerifier()]

    def decide(self, state, x, labels=None, *, timeout=None, generator=None):
        def ask(step, index, limit):
            at = torch.as_tensor(index, device=x.device)
            part = None if labels is None else labels[at]
            return step.decide(step.state, x[at], part, timeout=limit, generator=generator)

        return self.run(state, x, labels, ask, timeout=timeout)

    def run(self, state, x, labels, ask, *, timeout=None):
        limits = [limit for limit in (self.timeout, timeout) if limit is not None]
        limit = min(limits, default=None)
        found = Verification.undecided(x)
        for step in state.steps:
            index = found.undecided_index
            if len(index) == 0:
                break
            found = found.merge(index, ask(step, index, limit).signed(step.name))
        if state.check is None:
            return found
        other = ask(state.check, np.arange(len(x)), limit).signed(state.check.name)
        return self._compared(state, x, labels, found, other)

    def _compared(self, state, x, labels, found, other):
        """Return what two verifiers say together."""
        found.seconds[:] += other.seconds
        left = found.undecided_index
        seconds = found.seconds[left]
        found = found.merge(left, other[left])
        found.seconds[left] = seconds
        decided = [Verdict.VERIFIED, Verdict.FALSIFIED]
        both = np.isin(found.verdicts, decided) & np.isin(other.verdicts, decided)
        for i in np.flatnonzero(both & (found.verdicts != other.verdicts)):
            right, wrong = (
                (found, other) if found.verdicts[i] == Verdict.FALSIFIED else (other, found)
            )
            saved = self._save(state, x[i], None if labels is None else int(labels[i]), int(i))
            note = (
                f"{wrong.decided_by[i]} claims a proof, but {right.decided_by[i]} found a "
                f"counterexample. {saved}"
            )
            warnings.warn(f"Sample {i}: {note}", SolverDisagreementWarning, stacklevel=2)
            point = right.counterexamples[i]
            found = found.disagree(int(i), point, right.decided_by[i], note)
        return found

    def _save(self, state, x, label, i):
        """Save the query of one point; return a sentence that says where, or why not."""
        folder = self.query_folder
        try:
            folder = Path(tempfile.mkdtemp(prefix="skrobust-") if folder is None else folder)
            folder = folder / f"query-{i}"
            export_query(state.network, state.property, x.cpu().numpy(), label, folder)
        except Exception as error:  # whatever it is, the verdicts must not be lost
            return f"The query could not be saved: {error}"
        return f"The query was saved in {folder}."


def _network_stages():
    return [PGD(n_restarts=3), Bounds(), Exact()]


def _refuse(black_box, why):
    """Raise an error that says why an estimator is no network."""
    try:
        as_network(black_box.estimator)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{error} And {why}.") from None
    # A network, but not for what the property asks of it.
    raise UnsupportedModelError(
        f"Got a {type(black_box.estimator).__name__}, whose outputs are not read as a network for "
        f"this property. And {why}."
    )


def _named(stages):
    """Return a dict of names to stages."""
    names = [type(stage).__name__.lower() for stage in stages or []]
    numbered = [
        f"{name}_{names[: k + 1].count(name)}" if names.count(name) > 1 else name
        for k, name in enumerate(names)
    ]
    return dict(zip(numbered, stages or [], strict=True))


def _attack(attack, state, x, labels=None, *, timeout=None, generator=None):
    """Return what the reference points and an attack tell, as a verifier would."""
    found = at_reference(state.target(x, labels))
    return attacked(attack, found, state, x, labels, generator)
