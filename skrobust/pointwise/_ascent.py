r"""Lower bounds of programs over linear regions from weights of all their rows at once.

For weights y >= 0 of the half-spaces of a region, and r = A'y, weak duality bounds the optimum of
a program (see `_simplex`) by the root e of

.. math:: \sum_j \max_{\delta_j} r_j \delta_j = b'y, \quad |\delta_j| \le e,\;
   l_j \le \delta_j \le u_j.

A forward pass of the frozen network gives A times a move and a backward pass A'y, so that no row
is written out, and all programs climb together. The weights are those of a primal-dual hybrid
gradient method with reflected Halpern steps and restarts. It does not end at the optimum, and need
not: a bound beyond the limit settles a program, whatever weights prove it, and where the optimum
lies within, the rows that have weight are the ones to solve for.

References
----------
Applegate et al., "Practical large-scale linear programming using primal-dual hybrid gradient",
NeurIPS 2021; Lu and Yang, "Restarted Halpern PDHG for linear programming", 2024.
"""

from dataclasses import dataclass, fields

import torch

from skrobust.pointwise._simplex_rows import roots

__all__ = ["Climb", "climb"]

_STEP = 0.9  # of the largest step at which the method converges
_PROBES, _POWERS = 4, 6  # passes that measure the rows, and the whole of them
_WEIGHT = 0.1  # the first ratio of dual to primal steps, in units of the limit
_TURN = 10.0  # the most that one restart changes it
_HALVINGS = 25  # of an interval
_SMALLER, _SMALLER_AND_RISING, _LONG = 0.2, 0.8, 0.36  # when to restart, as in the second source
_CAP = 1.05  # of the limit: moves are searched no farther
_ROUNDING = 1e-12  # of sums, in each feature, relative to the sum of the weights
_LOOKS = 50  # steps after which to see who has arrived
_ARRIVED = 0.02, 0.9  # the largest violation and size of a move, of the limit
_PARTS = 3  # finished programs are left out once they are one in so many


@dataclass(eq=False)
class Climb:
    """How far n programs have come.

    Parameters
    ----------
    bound : Tensor of shape (n,)
        Proven lower bounds of the optima.
    move : Tensor of shape (n, n_features)
        Near the optimum where the method has converged; it may violate rows.
    weights : Tensor of shape (n, n_rows + n_classes)
        Of half-spaces and of outputs, scaled to norms near 1; not negative.
    """

    bound: torch.Tensor
    move: torch.Tensor
    weights: torch.Tensor

    def put(self, index, other):
        """Take over what another climb found, as the programs `index`."""
        for field in fields(self):
            getattr(self, field.name)[index] = getattr(other, field.name)


class _Rows:
    """The rows of n programs as passes through the frozen network; each has norm near 1.

    Parameters
    ----------
    region : LinearRegion
    targets : int Tensor of shape (n,)
        Classes that are to win.
    """

    def __init__(self, region, targets):
        self.region, self.targets = region, targets[:, None]
        self.scale, self.origin = 1.0, 0.0
        zeros = torch.zeros_like(region.x)
        origin = self.times(zeros)
        # Half-spaces that cannot be violated are infinitely far.
        self.origin = torch.where(torch.isfinite(origin), origin, 0.0)
        generator = torch.Generator().manual_seed(0)
        squares = 0.0
        for _ in range(_PROBES):
            direction = torch.randn(zeros.shape, generator=generator, dtype=torch.float64)
            squares = squares + self.times(direction.to(zeros.device)) ** 2
        scale = (squares / _PROBES).sqrt()
        self.scale = torch.where(scale > 0, scale, 1.0)

    def __getitem__(self, index):
        """Return the rows of the programs at `index`, a mask."""
        part = object.__new__(_Rows)
        part.region, part.targets = self.region[index.cpu().numpy()], self.targets[index]
        part.scale, part.origin = self.scale[index], self.origin[index]
        return part

    def times(self, move):
        """Return A times moves, of shape (n, n_rows + n_classes)."""
        values = self.region.values(move, linear=True)
        outputs = values[-1].flatten(1)
        leads = outputs.gather(1, self.targets) - outputs
        rows = torch.cat([self.region.slacks(values), leads], dim=1)
        rows = torch.where(torch.isfinite(rows), rows, 0.0)
        return (rows - self.origin) / self.scale

    def transposed(self, weights):
        """Return A'y for weights y, of shape (n, n_features)."""
        with torch.enable_grad():
            zeros = torch.zeros_like(self.region.x, requires_grad=True)
            (sums,) = torch.autograd.grad((self.times(zeros) * weights).sum(), zeros)
        return sums

    def norm(self):
        """Return the largest singular values, from below, of shape (n, 1)."""
        generator = torch.Generator().manual_seed(1)
        move = torch.randn(self.region.x.shape, generator=generator, dtype=torch.float64)
        move = move.to(self.region.x.device)
        for _ in range(_POWERS):
            move = self.transposed(self.times(move / _length(move)))
        return _length(move).sqrt()


def _length(vectors):
    length = vectors.norm(dim=1, keepdim=True)
    return torch.where(length > 0, length, 1.0)


@torch.no_grad()
def climb(region, right, tolerance, targets, low, high, limit, n_steps):
    """Climb until each bound has passed its limit, or a move shows that it will not.

    Parameters
    ----------
    region : LinearRegion
        Of n points.
    right : Tensor of shape (n, n_rows + n_classes)
        What a move has to reach at least in each row: -inf where nothing.
    tolerance : Tensor of shape (n, n_rows + n_classes)
        By how much it may miss that.
    targets : int Tensor of shape (n,)
        Classes that are to win.
    low, high : Tensor of shape (n, n_features)
        Domains of the moves.
    limit : Tensor of shape (n,)
        Positive and finite: also the unit in which moves are searched.
    n_steps : int
        At most.

    Returns
    -------
    Climb
    """
    found = Climb(torch.zeros_like(limit), torch.zeros_like(low), torch.zeros_like(right))
    running = torch.arange(len(limit), device=limit.device)
    walk = _Walk(region, right, tolerance, targets, low, high, limit)
    for step in range(1, n_steps + 1):
        walk.step()
        done = walk.best > 1.0
        if step % _LOOKS == 0:
            done |= walk.has_arrived()
        if int(done.sum()) * _PARTS >= len(running) or step % _LOOKS == 0 or step == n_steps:
            done |= torch.tensor(step == n_steps, device=done.device)
            found.put(running[done], walk.found(done))
            if done.all():
                break
            walk, running = walk[~done], running[~done]
    return found


class _Walk:
    """The steps of all programs together, in units of their limits."""

    def __init__(self, region, right, tolerance, targets, low, high, limit):
        self.unit = limit[:, None]
        self.rows = _Rows(region, targets)
        self.is_row = torch.isfinite(right)
        scale = self.unit * self.rows.scale
        self.right = torch.where(self.is_row, right, 0.0) / scale
        self.tolerance = tolerance / scale
        self.low = (low / self.unit).clamp_min(-_CAP)
        self.high = (high / self.unit).clamp_max(_CAP)
        self.step_size = _STEP / _length(self.rows.norm())
        self.weight = torch.full_like(self.unit, _WEIGHT)
        self.move, self.y = torch.zeros_like(low), torch.zeros_like(right)
        self.sums = torch.zeros_like(low)
        self.anchor = self.move, self.y, self.sums
        self.age, self.n_steps = torch.zeros_like(self.unit), 0
        self.first_error = self.last_error = torch.full_like(self.unit, torch.inf)
        self.best, self.latest = torch.zeros_like(limit), (self.move, self.y)

    def __getitem__(self, index):
        """Return the walks at `index`, a mask."""
        part = object.__new__(_Walk)
        for name, value in vars(self).items():
            if isinstance(value, tuple):
                value = tuple(each[index] for each in value)
            elif isinstance(value, torch.Tensor | _Rows):
                value = value[index]
            setattr(part, name, value)
        return part

    def found(self, index):
        """Return the `Climb` of the walks at `index`."""
        # Within the cap, weights may prove that there is no move at all.
        bound = self.best.clamp_max(_CAP) * self.unit[:, 0]
        move, weights = self.latest
        return Climb(bound[index], (move * self.unit)[index], weights[index])

    def has_arrived(self):
        """Return where a move well within the limit nearly satisfies all rows, of shape (n,)."""
        move = self.latest[0]
        short = (self.right - self.rows.times(move)) * self.is_row
        violation, size = _ARRIVED
        return (short.amax(dim=1) < violation) & (move.abs().amax(dim=1) < size)

    def step(self):
        down, up = self.step_size / self.weight, self.step_size * self.weight
        move = _nearest(self.move + down * self.sums, down, self.low, self.high)
        reached = self.rows.times(2 * move - self.move)
        y = ((self.y + up * (self.right - reached)).clamp_min(0.0)) * self.is_row
        sums = self.rows.transposed(y)
        self.best = torch.maximum(self.best, self._bound(y, sums))
        self.latest = move, y
        steps = move - self.move, y - self.y, sums - self.sums
        error = (
            steps[0].square().sum(dim=1, keepdim=True) / down
            - 2 * (steps[0] * steps[2]).sum(dim=1, keepdim=True)
            + steps[1].square().sum(dim=1, keepdim=True) / up
        )
        error = error.clamp_min(0.0).sqrt()
        self.n_steps += 1
        is_new = self.age == 0
        self.first_error = torch.where(is_new, error, self.first_error)
        restarts = ~is_new & (
            (error <= _SMALLER * self.first_error)
            | ((error <= _SMALLER_AND_RISING * self.first_error) & (error > self.last_error))
            | (self.age >= _LONG * self.n_steps)
        )
        self.last_error = error
        self._reweigh(move, y, restarts)
        share = (self.age + 1) / (self.age + 2)
        olds, news = (self.move, self.y, self.sums), (move, y, sums)
        nexts, anchors = [], []
        for old, new, anchor in zip(olds, news, self.anchor, strict=True):
            reflected = share * (2 * new - old) + (1 - share) * anchor
            nexts.append(torch.where(restarts, new, reflected))
            anchors.append(torch.where(restarts, new, anchor))
        self.move, self.y, self.sums = nexts
        self.anchor = tuple(anchors)
        self.age = torch.where(restarts, 0.0, self.age + 1)

    def _reweigh(self, move, y, restarts):
        """At restarts, balance how far the move and the weights have gone."""
        far, far_y = (
            (new - old).norm(dim=1, keepdim=True)
            for new, old in zip((move, y), self.anchor, strict=False)
        )
        is_told = restarts & (far > 1e-12) & (far_y > 1e-12)
        # Half of the way, by the logarithm.
        change = (far_y / (far.clamp_min(1e-12) * self.weight)).sqrt().clamp(1 / _TURN, _TURN)
        self.weight = torch.where(is_told, self.weight * change, self.weight)

    def _bound(self, y, sums):
        """Return what weights prove, of shape (n,), with room for all rounding."""
        size = sums.abs()
        slack = _ROUNDING * y.sum(dim=1) * torch.maximum(-self.low, self.high).sum(dim=1)
        wanted = (y * (self.right - self.tolerance)).sum(dim=1) - slack
        total = size.sum(dim=1)
        scale = torch.where(total > 0, total, 1.0)
        reach = torch.where(sums > 0, self.high, -self.low)
        parts = size / scale[:, None], reach, wanted / scale, torch.zeros_like(wanted)
        bound, _ = roots(*(part.cpu().numpy() for part in parts))
        return torch.as_tensor(bound).to(wanted)


def _nearest(point, step, low, high):
    """Return the minimizers of max |d| + |d - point|^2 / (2 step) in boxes."""
    size = point.abs()
    cap = torch.where(point > 0, high, -low)
    lower = torch.zeros_like(step)
    upper = torch.minimum(size, cap).amax(dim=1, keepdim=True)
    is_zero = (size * (cap > 0)).sum(dim=1, keepdim=True) <= step
    upper = torch.where(is_zero, 0.0, upper)
    for _ in range(_HALVINGS):
        middle = (lower + upper) / 2
        is_cut = (size > middle) & (cap > middle)
        is_above = ((size - middle) * is_cut).sum(dim=1, keepdim=True) > step
        lower = torch.where(is_above, middle, lower)
        upper = torch.where(is_above, upper, middle)
    return torch.sign(point) * torch.minimum(torch.minimum(size, cap), upper)
