"""Several attacks as one."""

from dataclasses import dataclass

import torch

from skrobust._parameters import NamedParts
from skrobust.attacks._base import Attack
from skrobust.attacks._boundary import closer
from skrobust.attacks._linear import LinearBoundary
from skrobust.attacks._minimum_norm import FastMinimumNorm
from skrobust.attacks._target import Outcome

__all__ = ["Ensemble", "EnsembleOutcome"]


@dataclass(frozen=True, eq=False)
class EnsembleOutcome(Outcome):
    """What an ensemble found, for each of n samples, and which member found it.

    Parameters
    ----------
    points : Tensor of shape (n, n_features)
        The closest point that breaks the property; that of lowest margin where none does.
    margins : Tensor of shape (n,)
        Smallest row of the property at that point.
    broken : bool Tensor of shape (n,)
        Whether the property is broken there.
    winners : int Tensor of shape (n,)
        Position of the member that found the point, the first of equals; -1 where no member
        found one, or where the reference point itself breaks the property.
    """

    winners: torch.Tensor


class Ensemble(NamedParts, Attack):
    """Several attacks; the closest point that any of them finds counts.

    In `search` and `perturb` the members attack in turn, each only the samples that are left,
    and the first success counts. `closest` asks all members for all samples, pulls what each finds
    to the boundary of the property, and returns the closest point in an `EnsembleOutcome`.

    Parameters
    ----------
    attacks : list of Attack or of (str, Attack) tuples, or None, default=None
        Members, and their names; one without a name is called by its class in lower case. Their
        parameters are parameters of the ensemble, as ``set_params(fmn__n_steps=10)``; a member is
        replaced by ``set_params(fmn=...)``. None is LinearBoundary and FastMinimumNorm, as
        "linear" and "fmn".

    Notes
    -----
    The default is made for `closest`: there, FGSM and PGD took more than half of the passes, and
    had the closest point of no sample. Table 2 of Tibo et al. counts the samples that FGSM, PGD
    and the attack of Hein and Andriushchenko (which they call BG) win against each other:
    ``Ensemble([("fgsm", FGSM()), ("pgd", PGD()), ("bg", LinearBoundary())])``.

    References
    ----------
    Tibo et al., "A general framework for defining and optimizing robustness", 2020, Table 2.

    Examples
    --------
    >>> import torch
    >>> from skrobust.attacks import Ensemble, Target
    >>> from skrobust.properties import ClassificationRobustness
    >>> network = torch.nn.Linear(1, 2)
    >>> _ = network.load_state_dict(
    ...     {"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.tensor([0.0, 1.0])}
    ... )
    >>> x, labels = torch.tensor([[0.7], [0.4], [0.95]]), torch.tensor([0, 0, 0])
    >>> attack = Ensemble().set_params(fmn__n_steps=10)
    >>> target = Target(network, ClassificationRobustness(0.3), x, labels)
    >>> closest = attack.closest(target)
    >>> closest.broken
    tensor([ True,  True, False])
    >>> closest.winners.shape
    torch.Size([3])
    """

    _parts_name = "attacks"

    def __init__(self, attacks=None):
        self.attacks = attacks

    def _default_list(self):
        return [("linear", LinearBoundary()), ("fmn", FastMinimumNorm())]

    @property
    def members(self):
        """The list of (name, attack) that `attacks` stands for."""
        return list(self.named_parts.items())

    @property
    def needs_gradient(self):
        """Whether any member follows gradients."""
        return any(attack.needs_gradient for _, attack in self.members)

    def check(self):
        self._check_parts(Attack, "PGD()")
        return self

    def closest(self, target, *, generator=None):
        self.check_target(target)
        best = target.assess(target.x, target.reference_logits)
        winners = torch.full((len(target),), -1, device=target.x.device)
        index = (target.movable & ~best.broken).nonzero().squeeze(1)
        for position, (_, attack) in enumerate(self.members if len(index) else ()):
            closest = attack.closest(target, generator=generator)
            best, taken = closer(target.ball, best, closest)
            winners[taken & best.broken] = position
        return EnsembleOutcome(best.points, best.margins, best.broken, winners)

    def attempt(self, target, *, generator=None, stop_when_broken=True):
        n = len(target)
        nothing = torch.zeros(n, dtype=torch.bool, device=target.x.device)
        outcome = Outcome(target.x, target.x.new_full((n,), torch.inf), nothing)
        for _, attack in self.members:
            for _ in range(attack.n_restarts):
                is_open = ~outcome.broken if stop_when_broken else torch.ones_like(nothing)
                index = is_open.nonzero().squeeze(1)
                if len(index) == 0:
                    return outcome
                run = attack.attempt(
                    target[index], generator=generator, stop_when_broken=stop_when_broken
                )
                outcome = outcome.merge(index, run)
        return outcome
