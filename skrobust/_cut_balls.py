"""Uniform points of L2 balls cut by boxes, exactly, in any number of dimensions.

Rejection from the ball alone would need 2^k draws where k features of the center sit at an end of
the domain, as most pixels of an image do. Three steps take its place, each of them exact:

1. The ball looks the same after a change of signs. In a feature whose center is at an end, the
   half on the other side is folded over.
2. Features whose cut is far away, at several standard deviations of a coordinate, are drawn as if
   they had none. What falls outside after all is drawn anew.
3. The others, w, have the density (1 - |w|^2)^(m/2) on their box once the m features of 1 and 2
   are integrated out. It is drawn by rejection from independent normal variables of precision t,
   each cut to its interval. With t = m / (1 - E_t |w|^2), the largest quotient of the densities
   is where |w|^2 concentrates, and about sqrt(m / (m + k)) of the k-dimensional draws are taken;
   for m = 0, about 1 / sqrt(pi k), far from exponentially few.
"""

import math

import torch

__all__ = ["CutBalls"]

_UNCUT = 1 - 1e-5  # an end from here on is the rounded end of the ball itself
_MISSES = 0.05  # share of the draws that step 2 may throw away on each side
_SMALLEST = 1e-3  # least precision t of the proposal; any is valid
_PROPOSALS = 2**16  # rows of step 3 drawn at a time


class CutBalls:
    """Unit balls around the origin, each cut by a box that holds the origin.

    Parameters
    ----------
    low, high : Tensor of shape (n, n_features)
        Ends of the boxes, in units of the radius. Where both are 0 the coordinate is.
    """

    def __init__(self, low, high):
        self.low, self.high = low, high
        n_features = low.shape[1]
        is_free = (low < 0) | (high > 0)
        self.fold = ((low == 0).to(low.dtype) - (high == 0).to(low.dtype)) * is_free
        # How far the cut is: on the other side where the ball is folded, else on the closer one.
        room = torch.where(self.fold != 0, torch.maximum(-low, high), torch.minimum(-low, high))
        is_cut = is_free & (room < _UNCUT)
        # The precision of a coordinate, had it a variance as of both its ends together.
        stiffness = torch.where(is_cut, 1 / _even_moment(low, high).clamp(min=1e-30), 0.0)
        t = (is_free & ~is_cut).sum(dim=1, dtype=low.dtype).clamp(min=_SMALLEST).unsqueeze(1)
        for _ in range(4):
            t = _newton_step(t, is_free / (t + stiffness), 0.0)
        far = math.sqrt(2) * torch.erfinv(torch.tensor(1 - 2 * _MISSES / max(n_features, 1)))
        needs_proposal = is_cut & (room * t.sqrt() < far.item())
        self.is_round = is_free & ~needs_proposal
        self.may_miss = bool((self.is_round & is_cut).any())
        self.n_round = self.is_round.sum(dim=1).to(low.dtype)
        self._take_out(needs_proposal, t)
        unlimited = self.is_round & ~is_cut
        self.low, self.high = low.masked_fill(unlimited, -2), high.masked_fill(unlimited, 2)
        # Factors of a coordinate and of its absolute value, where it is folded.
        self.fold = self.fold * self.is_round
        self.plain = (self.is_round & (self.fold == 0)).to(low.dtype)
        self.is_folded = bool((self.fold != 0).any())

    def _take_out(self, needs_proposal, t):
        """Prepare step 3: the places, ends and precisions of the features that it draws."""
        n_proposed = int(needs_proposal.sum(dim=1).max()) if len(needs_proposal) else 0
        places = needs_proposal.to(torch.uint8).topk(n_proposed, dim=1).indices
        taken = needs_proposal.gather(1, places)  # the rest fills up the shorter rows
        self.places = places
        low = torch.where(taken, self.low.gather(1, places), 0.0)
        high = torch.where(taken, self.high.gather(1, places), 0.0)
        m = self.n_round.unsqueeze(1)
        self.t = self._proposal_precision(t, low, high, m)
        self.w_low, self.w_high = low, high
        scale = (self.t / 2).sqrt()
        self.erf_low = torch.erf(low * scale)
        self.erf_width = torch.erf(high * scale) - self.erf_low
        # The log quotient of the densities is largest here.
        rest = torch.where(m > 0, (m / self.t).clamp(max=1), 0.0)
        self.log_largest = torch.xlogy(m / 2, rest) + self.t / 2 * (1 - rest)

    def _proposal_precision(self, t, low, high, m):
        """Return t such that m / t + E_t |w|^2 = 1, or the least one where the sum is below 1.

        Approximate: it decides how many draws are taken, not which.
        """
        for _ in range(5):
            t = _newton_step(t, _second_moment(low, high, t), m)
        return t

    def sample(self, n_samples, generator=None, normals=None):
        """Draw points of each ball, (n, n_samples, n_features).

        Parameters
        ----------
        n_samples : int
        generator : torch.Generator, default=None
        normals : Tensor of shape (n, n_samples, n_features), default=None
            Standard normal numbers for the directions, overwritten; drawn if None.
        """
        n, n_features = self.low.shape
        like = {"dtype": self.low.dtype, "device": self.low.device}
        if normals is None:
            normals = torch.randn((n, n_samples, n_features), generator=generator, **like)
        every_row = torch.arange(n, device=self.low.device).repeat_interleave(n_samples)
        # All at once, without an index; what this rejects is drawn again one by one.
        w, rest, accepted = self._drawn(slice(None), n_samples, generator)
        again = (~accepted.flatten()).nonzero()[:, 0]
        if len(again):
            w.flatten(0, 1)[again], rest.flatten()[again] = self._proposed(
                every_row[again], generator
            )
        points, inside = self._placed(slice(None), normals, w, rest, generator)
        points = points.flatten(0, 1)
        missing = (~inside.flatten()).nonzero()[:, 0]
        while len(missing):
            row = every_row[missing]
            normals = torch.randn((len(row), 1, n_features), generator=generator, **like)
            w, rest = self._proposed(row, generator)
            again, inside = self._placed(row, normals, w[:, None], rest[:, None], generator)
            points[missing] = again[:, 0]
            missing = missing[~inside[:, 0]]
        return points.unflatten(0, (n, n_samples))

    def _placed(self, rows, g, w, rest, generator):
        """Return points with the coordinates `w` of step 3, and whether they are in the box.

        The other coordinates are uniform in their ball of radius sqrt(rest), along `g`.
        """
        m = self.n_round[rows].unsqueeze(1)
        is_round = self.is_round[rows].to(g.dtype)
        other = torch.mul(g, g)  # reused below: large arrays cost more to get than to fill
        length = torch.bmm(other, is_round.unsqueeze(2))[:, :, 0].clamp(min=1e-30).sqrt()
        u = torch.rand(rest.shape, generator=generator, device=g.device, dtype=g.dtype)
        radius = rest.clamp(min=0).sqrt() * u ** (1 / m.clamp(min=1))
        g.mul_((radius / length).unsqueeze(2))
        if self.is_folded:
            torch.abs(g, out=other).mul_(self.fold[rows].unsqueeze(1))
            other.addcmul_(g, self.plain[rows].unsqueeze(1))
            g, other = other, g
        else:
            g.mul_(self.plain[rows].unsqueeze(1))
        if w.shape[2]:
            places = self.places[rows].unsqueeze(1).expand(w.shape)
            g.scatter_add_(2, places, w)
        if not self.may_miss:
            return g, torch.ones(g.shape[:2], dtype=torch.bool, device=g.device)
        low, high = self.low[rows].unsqueeze(1), self.high[rows].unsqueeze(1)
        return g, (torch.clamp(g, low, high, out=other) == g).all(dim=2)

    def _proposed(self, row, generator):
        """Return the coordinates of step 3 for each entry of `row`, and 1 - |w|^2."""
        like = {"dtype": self.low.dtype, "device": self.low.device}
        w = torch.zeros((len(row), self.places.shape[1]), **like)
        rest = torch.ones(len(row), **like)
        waiting = torch.arange(len(row), device=row.device)
        while len(waiting):
            # Several tries for each of the last ones: the time is in the calls, not the numbers.
            copies = max(min(_PROPOSALS, len(row)) // len(waiting), 1)
            at = row[waiting]
            # Memory stays bounded where there are very many rows.
            parts = [
                self._tries(part, copies, generator)
                for part in at.split(max(_PROPOSALS // copies, 1))
            ]
            accepted, tried, left = (torch.cat(part) for part in zip(*parts, strict=True))
            done = waiting[accepted]
            w[done], rest[done] = tried[accepted], left[accepted]
            waiting = waiting[~accepted]
        return w, rest

    def _tries(self, at, copies, generator):
        """Try `copies` draws for each entry of `at`; return whether, and the first accepted."""
        w, rest, accepted = self._drawn(at, copies, generator)
        pick = torch.arange(len(at), device=at.device), accepted.to(torch.uint8).argmax(dim=1)
        return accepted.any(dim=1), w[pick], rest[pick]

    def _drawn(self, rows, copies, generator):
        """Draw the coordinates of step 3: w (k, copies, .), 1 - |w|^2, and which are taken."""
        t, m = self.t[rows], self.n_round[rows].unsqueeze(1)
        like = {"dtype": t.dtype, "device": t.device, "generator": generator}
        if not self.places.shape[1]:
            every = torch.ones((len(t), copies), dtype=t.dtype, device=t.device)
            return every.new_zeros((len(t), copies, 0)), every, every.to(torch.bool)
        w = torch.rand((len(t), copies, self.places.shape[1]), **like)
        # By the inverse of the distribution function, around 0 where floats are dense.
        low, width = self.erf_low[rows].unsqueeze(1), self.erf_width[rows].unsqueeze(1)
        torch.erfinv(torch.addcmul(low, w, width, out=w), out=w)
        w.mul_((2 / t).sqrt().unsqueeze(2))
        w.clamp_(self.w_low[rows].unsqueeze(1), self.w_high[rows].unsqueeze(1))
        s = torch.linalg.vector_norm(w, dim=2).square_()
        rest = 1 - s
        log_quotient = torch.xlogy(m / 2, rest.clamp(min=0)) + t / 2 * s - self.log_largest[rows]
        taken = torch.rand(s.shape, **like).log() <= log_quotient
        return w, rest, taken & (rest >= 0)


def _newton_step(t, moments, m):
    """Return a better t for m / t + (sum of `moments` at t) = 1, all of shape (n, 1).

    By Newton's method on the inverse of the sum, which is nearly linear in t if a moment changes
    with t as 1 / (t + constant) does.
    """
    first = moments.sum(dim=1, keepdim=True) + m / t
    second = (moments * moments).sum(dim=1, keepdim=True) + m / t**2
    return (t + (first * first - first) / second.clamp(min=1e-30)).clamp(min=_SMALLEST)


def _even_moment(low, high):
    """Return E w^2 of uniform variables on intervals."""
    return (low * low + low * high + high * high) / 3


def _second_moment(low, high, t):
    """Return E w^2 of normal variables of precision t on intervals."""
    a, b = low * t.sqrt(), high * t.sqrt()
    mass = (torch.erf(b / math.sqrt(2)) - torch.erf(a / math.sqrt(2))) * math.sqrt(math.pi / 2)
    edges = a * torch.exp(-a * a / 2) - b * torch.exp(-b * b / 2)
    exact = (1 + edges / mass.clamp(min=1e-30)) / t
    # In narrow intervals the difference cancels, and the distribution is uniform.
    return torch.where(b - a < 0.1, _even_moment(low, high), exact)
