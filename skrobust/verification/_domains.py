"""Parts of a ball in which units are decided, and those that wait to be bounded."""

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch

__all__ = ["Batch", "Domains", "Stack", "split"]


class Batch:
    """Base class of P parts of a ball: dataclasses of tensors, and of dicts of them, (P, ...).

    Each has a field `place`, its number in the tree of parts.
    """

    # What is kept while parts wait, by field: another dtype than that which is computed in.
    packed: ClassVar = {}

    def __len__(self):
        return len(self.place)

    def __getitem__(self, index):
        return self.map(lambda name, part: part[index])

    def map(self, function):
        """Return the parts with ``function(name, tensor)`` for each tensor of each field."""
        changed = {}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, dict):
                changed[name] = {key: function(name, part) for key, part in value.items()}
            else:
                changed[name] = function(name, value)
        return type(self)(**changed)

    @property
    def n_bytes(self):
        """Memory of all tensors."""
        sizes = []

        def measure(name, part):
            sizes.append(part.numel() * part.element_size())

        self.map(measure)
        return sum(sizes)

    @classmethod
    def join(cls, parts):
        """Put several into one."""
        joined = {}
        for name in (field.name for field in fields(cls)):
            values = [getattr(part, name) for part in parts]
            if isinstance(values[0], dict):
                joined[name] = {k: torch.cat([v[k] for v in values]) for k in values[0]}
            else:
                joined[name] = torch.cat(values)
        return cls(**joined)


@dataclass(frozen=True, eq=False)
class Domains(Batch):
    """P domains: nodes of the tree of decisions.

    Parameters
    ----------
    problem : int Tensor of shape (P,)
    lows, highs : dict of int to Tensor of shape (P, *shape)
        Intervals of what piecewise nodes read.
    signs : dict of int to Tensor of shape (P, *shape)
        Decisions of those nodes: 1, -1, or 0 for none.
    alphas : dict of int to Tensor of shape (P, m, *shape)
    betas : dict of int to Tensor of shape (P, 1, *shape)
    lower : Tensor of shape (P,)
    branch : int Tensor of shape (P, 2)
        The node that a piecewise one reads, and its entry to decide next; -1 if none is left.
    cut : Tensor of shape (P,)
        The value that the entry is decided at: 0 where a unit is linear on both sides.
    depth : int Tensor of shape (P,)
        Number of decisions since the intervals were tightened.
    place : int Tensor of shape (P,)
        Number of the domain in the tree, in the order in which domains are made.
    parent : int Tensor of shape (P,)
        Place of the domain that it is a half of; -1 for the whole ball.
    decision : int Tensor of shape (P, 3)
        By which it differs from its parent: node, entry, and sign; zeros for the whole ball.
    """

    problem: torch.Tensor
    lows: dict
    highs: dict
    signs: dict
    alphas: dict
    betas: dict
    lower: torch.Tensor
    branch: torch.Tensor
    cut: torch.Tensor
    depth: torch.Tensor
    place: torch.Tensor
    parent: torch.Tensor
    decision: torch.Tensor

    # Any slopes and multipliers are right, and signs are whole numbers.
    packed: ClassVar = {"alphas": torch.float32, "betas": torch.float32, "signs": torch.int8}


def split(domains, first):
    """Return both halves of each domain: the unit at least `cut`, and at most that.

    Parameters
    ----------
    domains : Domains
    first : int
        Place of the first half in the tree.

    Returns
    -------
    Domains
    """
    halves, count = [], len(domains)
    places = torch.arange(first, first + 2 * count, device=domains.place.device).view(2, count)
    for sign, place in zip((1, -1), places, strict=True):
        names = ("lows", "highs", "signs", "betas")
        lows, highs, signs, betas = ({**getattr(domains, name)} for name in names)
        for j in signs:
            at = (domains.branch[:, 0] == j).nonzero().squeeze(1)
            unit = domains.branch[at, 1]
            side = lows if sign > 0 else highs
            side[j], signs[j] = side[j].clone(), signs[j].clone()
            side[j].flatten(1)[at, unit] = domains.cut[at]
            # A unit that is decided again on its other side has learned nothing of that one.
            turned = signs[j].flatten(1)[at, unit] == -sign
            if turned.any():
                betas[j] = betas[j].clone()
                betas[j].flatten(2)[at[turned], :, unit[turned]] = 0.0
            signs[j].flatten(1)[at, unit] = sign
        sides = torch.full_like(place, sign).unsqueeze(1)
        changed = {
            "lows": lows,
            "highs": highs,
            "signs": signs,
            "betas": betas,
            "depth": domains.depth + 1,
            "place": place,
            "parent": domains.place,
            "decision": torch.cat([domains.branch, sides], dim=1),
        }
        halves.append(replace(domains, **changed))
    return Domains.join(halves)


class Stack:
    """Parts that wait to be bounded, the last ones first, within a limit of memory.

    Parameters
    ----------
    memory_limit : float
        Bytes. Near it fewer domains are taken at once, down to one: then the stack grows by one
        with each decision, and is at most as deep as there are units.
    """

    def __init__(self, memory_limit):
        self.limit, self.n_bytes, self.parts = memory_limit, 0, []

    def __bool__(self):
        return bool(self.parts)

    def push(self, domains):
        """Put domains on top."""
        packed = domains.map(lambda name, part: part.to(domains.packed.get(name, part.dtype)))
        self.parts.append(packed)
        self.n_bytes += packed.n_bytes

    def drop(self, problem):
        """Drop the domains of one problem; return whether there were any."""
        parts, self.parts, self.n_bytes = self.parts, [], 0
        for part in parts:
            is_other = part.problem != problem
            kept = part if is_other.all() else part[is_other]
            if len(kept):
                self.parts.append(kept)
                self.n_bytes += kept.n_bytes
        return sum(map(len, self.parts)) < sum(map(len, parts))

    def take(self, count):
        """Take at most that many domains from the top, so that their halves fit."""
        # Each step puts back at most twice what it takes.
        size = self.parts[-1].n_bytes / len(self.parts[-1])
        count = max(1, int(min(count, (self.limit - self.n_bytes) / size)))
        taken = []
        while self.parts and count:
            part = self.parts.pop()
            self.n_bytes -= part.n_bytes
            if len(part) > count:
                # Copies, so that the memory of what is taken is free.
                rest = part.map(lambda name, value, at=-count: value[:at].clone())
                self.parts.append(rest)
                self.n_bytes += rest.n_bytes
                part = part[-count:]
            taken.append(part)
            count -= len(part)
        taken = taken[0] if len(taken) == 1 else type(taken[0]).join(taken)
        return taken.map(lambda name, part: part.double() if name in taken.packed else part)
