"""Valid inputs beyond a box: integers, one-hot groups, and linear constraints between features."""

from dataclasses import dataclass
from itertools import chain

import numpy as np

from skrobust._validation import check_bounds, expected

__all__ = ["Domain", "box_of"]

_ROUNDING = 1e-12  # relative, by which the rounding of a sum may pass a constraint


@dataclass(frozen=True, eq=False)
class Domain:
    r"""The valid inputs, where they are less than a box: given as `bounds` of a property.

    A point is valid if it lies in the box, is whole in the features that are integers, has one 1
    and else 0 in each one-hot group, and satisfies :math:`A x \le b`. An epsilon of 1 or more in
    the features of a one-hot group lets the category change, one below 1 keeps it.

    Parameters
    ----------
    lower, upper : float or array-like of shape (n_features,)
        Lowest and highest valid value of the features.
    integers : list of int or str, default=()
        Features that take whole numbers only, by place or by name.
    one_hot : list of lists of int or str, default=()
        Groups of features, of each of which one is 1 and the others are 0.
    constraints : tuple (A, b) of array-likes, or None, default=None
        Of shapes (m, n_features) and (m,): the constraints A x <= b.
    feature_names : list of str, default=None
        Names of the features in their order, such as ``X.columns``. Only needed where features
        are given by name.

    Raises
    ------
    ValueError
        If a part is not valid, or no point is: the error names what contradicts each other.

    Examples
    --------
    An age in years, one of three jobs, and debts of at most ten times the income:

    >>> from skrobust.properties import ClassificationRobustness, Domain
    >>> names = ["age", "clerk", "baker", "other", "income", "debts"]
    >>> domain = Domain(
    ...     [18, 0, 0, 0, 0, 0],
    ...     [99, 1, 1, 1, 500, 900],
    ...     integers=["age"],
    ...     one_hot=[["clerk", "baker", "other"]],
    ...     constraints=([[0, 0, 0, 0, -10, 1]], [0]),
    ...     feature_names=names,
    ... )
    >>> domain.holds([[30, 0, 1, 0, 50, 400], [30.5, 0, 1, 0, 50, 400], [30, 0, 0, 0, 50, 400]])
    array([ True, False, False])
    >>> property = ClassificationRobustness([2, 1, 1, 1, 5, 0], bounds=domain)
    """

    lower: object
    upper: object
    integers: object = ()
    one_hot: object = ()
    constraints: object = None
    feature_names: object = None

    def __init__(
        self, lower, upper, *, integers=(), one_hot=(), constraints=None, feature_names=None
    ):
        given = (lower, upper, integers, one_hot, constraints, feature_names)
        for name, value in zip(self.__dataclass_fields__, given, strict=True):
            object.__setattr__(self, name, value)
        low, high = check_bounds((lower, upper), name="(lower, upper)")
        names = None if feature_names is None else [str(name) for name in feature_names]
        A, b = _checked_constraints(constraints)
        sizes = {
            "lower and upper": max(np.size(low), np.size(high)) if _is_array(low, high) else None,
            "feature_names": None if names is None else len(names),
            "constraints": None if A is None else A.shape[1],
        }
        sizes = {name: size for name, size in sizes.items() if size is not None}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"Got a Domain of numbers of features {sizes}, but expected one.")
        n_features = next(iter(sizes.values()), None)
        groups = _checked_groups(one_hot, names, n_features)
        hot = {place for group in groups for place in group}
        whole = _places("integers", integers, names, n_features)
        parts = {
            "box": (low, high),
            "n_features": n_features,
            "groups": groups,
            "whole": sorted(set(whole) - hot),
            "A": A,
            "b": b,
            "names": names,
        }
        object.__setattr__(self, "_parts", parts)
        self._check_box()
        if A is not None:
            self._check_feasible()

    @classmethod
    def from_frame(cls, X, *, integers=None, one_hot=(), constraints=None):
        """Return the domain that the columns of a frame span.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_features)
            Of pandas or polars, with columns of numbers.
        integers : list of str, default=None
            None takes all columns of integers and bools.
        one_hot : list of lists of str, default=()
        constraints : tuple (A, b) of array-likes, or None, default=None

        Returns
        -------
        Domain
            From the least to the largest value of each column.
        """
        columns = {name: np.asarray(X[name]) for name in X.columns}
        if integers is None:
            integers = [name for name, column in columns.items() if column.dtype.kind in "iub"]
        ends = np.array([[float(c.min()), float(c.max())] for c in columns.values()]).T
        options = {"integers": integers, "one_hot": one_hot, "constraints": constraints}
        return cls(*ends, **options, feature_names=list(columns))

    @property
    def box(self):
        """The pair (low, high) of floats or arrays: the box around all valid points."""
        return self._parts["box"]

    @property
    def integer_places(self):
        """Places of the features that are integers, and in no one-hot group: list of int."""
        return self._parts["whole"]

    @property
    def groups(self):
        """Places of the features of each one-hot group: list of lists of int."""
        return self._parts["groups"]

    @property
    def rows(self):
        """The constraints as arrays A of shape (m, n_features) and b of shape (m,), or None."""
        return None if self._parts["A"] is None else (self._parts["A"], self._parts["b"])

    @property
    def is_box(self):
        """Whether the box is all that there is to it."""
        return not (self.integer_places or self.groups or self.rows is not None)

    @property
    def discrete(self):
        """Places of all features that take single values only, as an int array."""
        return np.array(
            sorted([*self.integer_places, *chain.from_iterable(self.groups)]), dtype=np.int64
        )

    def places(self, name, features):
        """Return the places of features that are given by place or name; see `Domain`."""
        return _places(name, features, self._parts["names"], self._parts["n_features"])

    def holds(self, X, widened_to=None):
        """Return whether each row is valid.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        widened_to : array-like of shape (n_samples, n_features), default=None
            Rows that count as valid, whatever rounding made of them: the box and the
            constraints are widened to each.

        Returns
        -------
        ndarray of bool, shape (n_samples,)
        """
        X = np.asarray(X, dtype=np.float64)
        wide = X if widened_to is None else np.asarray(widened_to, dtype=np.float64)
        low, high = self.box
        if widened_to is not None:
            low, high = np.minimum(low, wide), np.maximum(high, wide)
        valid = (np.clip(X, low, high) == X).all(axis=1) & self._has_codes(X).all(axis=1)
        return valid & self._within_rows(X, None if widened_to is None else wide).all(axis=1)

    def _has_codes(self, X):
        """Return for each row whether it is whole, and whether each group is a one-hot code."""
        whole = X[:, self.integer_places]
        checks = [(whole == np.round(whole)).all(axis=1)]
        for group in self.groups:
            codes = X[:, group]
            is_binary = ((codes == 0) | (codes == 1)).all(axis=1)
            checks.append(is_binary & (codes.sum(axis=1) == 1))
        return np.stack(checks, axis=1)

    def _within_rows(self, X, widened_to=None):
        if self.rows is None:
            return np.ones((len(X), 1), dtype=bool)
        A, b = self.rows
        limit = b if widened_to is None else np.maximum(b, widened_to @ A.T)
        excess = X @ A.T - limit
        return excess <= _ROUNDING * (np.abs(X) @ np.abs(A).T + np.abs(b))

    def check_rows(self, X):
        """Refuse reference points that are not valid, but for the box; see `Domain`.

        Raises
        ------
        ValueError
        """
        X = np.asarray(X, dtype=np.float64)
        n_features = self._parts["n_features"]
        largest = max([*self.integer_places, *chain.from_iterable(self.groups)], default=-1)
        if X.shape[1] != (n_features or X.shape[1]) or largest >= X.shape[1]:
            wanted = n_features or f"more than {largest}"
            raise ValueError(f"Got X of {X.shape[1]} features, but expected {wanted}, as bounds.")
        whole = X[:, self.integer_places] != np.round(X[:, self.integer_places])
        if whole.any():
            feature = self._name(self.integer_places[int(whole.any(axis=0).argmax())])
            raise ValueError(
                f"Got {whole.any(axis=1).sum()} of {len(X)} rows of X with a fraction in feature "
                f"{feature}, but expected whole numbers: it is among the integers of bounds."
            )
        codes = self._has_codes(X)
        for group, is_code in zip(self.groups, codes[:, 1:].T, strict=True):
            if not is_code.all():
                row = int((~is_code).argmax())
                values = X[row, group].tolist()
                why = " (a category that was never seen?)" if not any(values) else ""
                raise ValueError(
                    f"Got {(~is_code).sum()} of {len(X)} rows of X that are no one-hot code in "
                    f"the features {', '.join(map(self._name, group))}, such as {values} in "
                    f"row {row}{why}, but expected one 1, and else 0."
                )
        # As of bounds, rounding may take data a millionth out.
        if self.rows is not None:
            A, b = self.rows
            excess = X @ A.T - b - 1e-6 * (np.abs(X) @ np.abs(A).T + np.abs(b))
            if (excess > 0).any():
                row = int((excess > 0).any(axis=0).argmax())
                raise ValueError(
                    f"Got {(excess[:, row] > 0).sum()} of {len(X)} rows of X that break the "
                    f"constraint {self._shown(row)}, but expected data that satisfy it."
                )

    def _check_box(self):
        low, high = self.box
        n = self._parts["n_features"]
        for place in self.integer_places:
            first, last = (float(np.broadcast_to(s, n or place + 1)[place]) for s in (low, high))
            if np.isfinite(first) and np.floor(last) < np.ceil(first):
                raise ValueError(
                    f"Got bounds from {first} to {last} of feature {self._name(place)}, but "
                    "expected some whole number between them, as it is an integer."
                )
        for place in chain.from_iterable(self.groups):
            first, last = (float(np.broadcast_to(s, n or place + 1)[place]) for s in (low, high))
            if not first <= 0 < 1 <= last:
                raise ValueError(
                    f"Got bounds from {first} to {last} of feature {self._name(place)}, but "
                    "expected some that hold 0 and 1, as it is in a one-hot group."
                )

    def _check_feasible(self):
        """Refuse constraints that no point satisfies, by the fewest that contradict each other."""
        m = len(self._parts["b"])
        if self._is_feasible(range(m)):
            return
        kept = list(range(m))
        for row in range(m):  # the deletion filter: what is left cannot lose any
            without = [other for other in kept if other != row]
            if not self._is_feasible(without):
                kept = without
        shown = ", ".join(self._shown(row) for row in kept)
        raise ValueError(
            f"Got constraints that no point of the domain satisfies: {shown} (with the bounds, "
            "integers and groups), but expected some that hold together."
        )

    def _is_feasible(self, rows):
        from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import

        A, b = self._parts["A"], self._parts["b"]
        n, rows = A.shape[1], list(rows)
        whole = np.zeros(n)
        whole[self.discrete] = 1
        limits = [LinearConstraint(A[rows], -np.inf, b[rows])] if rows else []
        codes = [np.isin(np.arange(n), group)[None].astype(float) for group in self.groups]
        limits += [LinearConstraint(code, 1, 1) for code in codes]
        low, high = (np.broadcast_to(side, n) for side in self.box)
        result = milp(np.zeros(n), integrality=whole, bounds=Bounds(low, high), constraints=limits)
        return result.status != 2

    def _shown(self, row):
        A, b = self._parts["A"][row], self._parts["b"][row]
        terms = [f"{A[j]:+g} {self._name(j)}" for j in np.flatnonzero(A)]
        return f"{row} ({' '.join(terms[:6])}{' ...' if len(terms) > 6 else ''} <= {b:g})"

    def _name(self, place):
        names = self._parts["names"]
        return f"x[{place}]" if names is None else repr(names[place])

    def __repr__(self):
        parts = [_shown_side(side) for side in self.box]
        if self.integer_places:
            parts.append(f"integers={self.integer_places}")
        if self.groups:
            parts.append(f"one_hot={self.groups}")
        if self.rows is not None:
            parts.append(f"constraints={len(self._parts['b'])} rows")
        return f"Domain({', '.join(parts)})"

    def __eq__(self, other):
        if not isinstance(other, Domain):
            return NotImplemented
        mine, theirs = self._parts, other._parts
        plain = all(mine[k] == theirs[k] for k in ("groups", "whole", "names", "n_features"))
        arrays = all(np.array_equal(*pair) for pair in zip(self.box, other.box, strict=True))
        rows = all(np.array_equal(mine[k], theirs[k]) for k in "Ab")
        return plain and arrays and rows

    __hash__ = None


def box_of(bounds, n_features=None):
    """Return the box of `bounds`, a pair, None or a `Domain`, as `check_bounds` does."""
    return check_bounds(bounds.box if isinstance(bounds, Domain) else bounds, n_features)


def _shown_side(side):
    return f"{side:g}" if np.ndim(side) == 0 else f"array of shape {side.shape}"


def _is_array(*sides):
    return any(np.ndim(side) > 0 for side in sides)


def _places(name, features, names, n_features):
    """Return the places of features given by place or name, each once, or raise."""
    limit = "" if n_features is None else f" from 0 to {n_features - 1}"
    known = "" if names is None else f", or names among {names}"
    expectation = f"a list of places{limit}{known}, each once"
    try:
        given = [features] if isinstance(features, str) else list(features)
    except TypeError:
        raise ValueError(expected(name, features, expectation)) from None
    places = []
    for feature in given:
        if isinstance(feature, str) and names is not None and feature in names:
            feature = names.index(feature)
        is_int = isinstance(feature, int | np.integer) and not isinstance(feature, bool)
        if not is_int or not 0 <= feature < (n_features or np.inf):
            advice = ". Give feature_names to use names" if isinstance(feature, str) else ""
            raise ValueError(expected(name, features, expectation + advice))
        places.append(int(feature))
    if len(set(places)) < len(places):
        raise ValueError(expected(name, features, expectation))
    return places


def _checked_groups(one_hot, names, n_features):
    expectation = "a list of groups of at least two features, no feature in two of them"
    if isinstance(one_hot, str) or not hasattr(one_hot, "__iter__"):
        raise ValueError(expected("one_hot", one_hot, expectation))
    groups = [_places("one_hot", group, names, n_features) for group in one_hot]
    flat = list(chain.from_iterable(groups))
    if any(len(group) < 2 for group in groups) or len(set(flat)) < len(flat):
        raise ValueError(expected("one_hot", one_hot, expectation))
    return groups


def _checked_constraints(constraints):
    if constraints is None:
        return None, None
    expectation = "None, or finite arrays (A, b) of shapes (m, n_features) and (m,), m at least 1"
    try:
        A, b = (np.array(part, dtype=np.float64) for part in constraints)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected("constraints", constraints, expectation)) from None
    fits = A.ndim == 2 and A.size > 0 and b.shape == A.shape[:1]
    if not fits or not (np.isfinite(A).all() and np.isfinite(b).all()):
        found = f"arrays of shapes {A.shape} and {b.shape}"
        raise ValueError(f"Got constraints={found}, but expected {expectation}.")
    return A, b
