"""What a VNNLIB file asserts: boxes of inputs, each with a condition on the outputs.

Comparisons are kept as they are stated, strict or not. A box is closed, which holds more than a
strict bound does: where nothing of it satisfies the file, nothing within the strict bounds does.
That a bound is strict is kept beside it, for the points that are said to satisfy the file.
"""

import itertools
import math
import re
from dataclasses import dataclass, field
from fractions import Fraction

from skrobust.verification._vnnlib_text import Term, Word, commands, refuse, term_of

__all__ = ["Bound", "Case", "Constraint", "Statement", "read_statement"]

_MOST_CASES = 10_000
_MOST_DISJUNCTS = 10_000
_MOST_NUMBERS = 10**7  # of all boxes
_NAME = re.compile(r"([XY])_(0|[1-9]\d{0,8})\Z", re.ASCII)
_OPPOSITES = {"<=": ">", ">=": "<", "<": ">=", ">": "<="}
_SIGNS = (*_OPPOSITES, "=")
_FORMULAS = "and, or, not, <=, >=, <, > or ="
# What scripts for solvers say besides; it changes no meaning.
_REMARKS = ("set-logic", "set-info", "set-option")
_ENDS = ("check-sat", "get-model", "exit")


@dataclass(frozen=True, eq=False)
class Constraint:
    """A claim that a `Term` of the outputs is at most 0, or below 0 where it is strict."""

    term: Term
    strict: bool = False

    def holds(self, outputs):
        """Return whether it is true of outputs, a list of `fractions.Fraction`, exactly."""
        kind = type(outputs[0])
        total = kind(self.term.constant)
        for name, weight in self.term.weights.items():
            total += kind(weight) * outputs[int(name[2:])]
        return total < 0 if self.strict else total <= 0


@dataclass(frozen=True)
class Bound:
    """A bound of one input, and the `Word` that gave it."""

    value: float
    word: Word
    strict: bool = False


@dataclass(frozen=True, eq=False)
class Case:
    """One box, and what is asked of the outputs in it.

    Parameters
    ----------
    lows, highs : dict of str to Bound
    outputs : list of list of Constraint
        A disjunction of conjunctions. That of nothing is always true: ``[[]]``.
    """

    lows: dict = field(default_factory=dict)
    highs: dict = field(default_factory=dict)
    outputs: list = field(default_factory=lambda: [[]])

    def holds(self, outputs):
        """Return whether the condition is true of outputs, as `Constraint.holds` does."""
        return any(all(part.holds(outputs) for part in parts) for parts in self.outputs)

    def empty_input(self):
        """Return the first input that lies between no two bounds, or None."""
        return next((name for name in self.lows if name in self.highs and self._ends(name)), None)

    def _ends(self, name):
        low, high = self.lows[name], self.highs[name]
        is_strict = low.strict or high.strict
        return low.value >= high.value if is_strict else low.value > high.value


@dataclass(frozen=True, eq=False)
class Statement:
    """What a file asserts: that one of several cases has a point.

    Parameters
    ----------
    n_inputs, n_outputs : int
    cases : list of Case
    """

    n_inputs: int
    n_outputs: int
    cases: list


def read_statement(path):
    """Read a file as a `Statement`.

    Raises
    ------
    ValueError
        If it is not understood; the file, the line and the word are named.
    """
    variables, parts, word, has_ended = {}, [], None, False
    for command in commands(path):
        word = command[0]
        if isinstance(word, Word) and word in (*_REMARKS, *_ENDS):
            has_ended = has_ended or word in _ENDS
        elif has_ended:
            refuse(path, word, "nothing that is declared or asserted after (check-sat)")
        elif word == "declare-const" or word == "declare-fun":
            _declare(path, command, variables)
        elif word == "assert" and len(command) == 2:
            parts.append(_cases_of(path, command[1], variables))
        else:
            refuse(path, word, "(declare-const NAME Real) or (assert FORMULA)")
    counts = [_count(path, variables, kind) for kind in "XY"]
    cases = _all_of(path, word, parts)
    for case in cases:
        _check_box(path, case, counts[0])
    return Statement(*counts, cases)


def _declare(path, command, variables):
    """Add a variable that is declared."""
    *start, kind = command
    if len(command) != (3 if command[0] == "declare-const" else 4) or kind != "Real":
        refuse(path, command[0], "(declare-const NAME Real)")
    name = start[1]
    if not isinstance(name, Word) or not _NAME.match(name):
        refuse(path, name, "X_0, X_1, ... for inputs, and Y_0, Y_1, ... for outputs")
    if name in variables:
        refuse(path, name, f"a name that is new; it was declared in line {variables[name].line}")
    variables[str(name)] = name


def _count(path, variables, kind):
    names = [name for name in variables if name[0] == kind]
    for place in range(len(names)):
        if f"{kind}_{place}" not in variables:
            what = f"{kind}_0 to {kind}_{len(names) - 1}, but {kind}_{place} is missing"
            refuse(path, variables[names[-1]], f"the variables {what}")
    if not names:
        raise ValueError(f"Got {path} without a variable {kind}_0, but expected its declaration.")
    return len(names)


def _check_box(path, case, n_inputs):
    for place in range(n_inputs):
        name = f"X_{place}"
        for side, ends in (("lower", case.lows), ("upper", case.highs)):
            if name not in ends:
                raise ValueError(
                    f"Got {path}, in which {name} has no {side} bound, but expected both bounds "
                    "of every input."
                )
    name = case.empty_input()
    if name is not None:
        low, high = case.lows[name], case.highs[name]
        later = max(low.word, high.word, key=lambda word: word.line)
        expectation = f"a box that is not empty: {name} lies between {low.value} and {high.value}"
        refuse(path, later, expectation)


# -- formulas --


def _cases_of(path, formula, variables, is_negated=False):
    """Return the cases of one formula: boxes that it leaves open, with conditions on outputs."""
    if isinstance(formula, Word):
        refuse(path, formula, f"a formula in brackets: {_FORMULAS}")
    sign, *parts = formula
    if not isinstance(sign, Word) or sign not in ("and", "or", "not", *_SIGNS):
        refuse(path, sign, _FORMULAS)
    if sign in _SIGNS:
        return _comparisons(path, sign, parts, variables, is_negated)
    if not parts:
        refuse(path, sign, f"{sign} with formulas")
    if sign == "not":
        if len(parts) != 1:
            refuse(path, sign, "(not FORMULA)")
        return _cases_of(path, parts[0], variables, not is_negated)
    alternatives = [_cases_of(path, part, variables, is_negated) for part in parts]
    # A negation moves inwards to the comparisons, where it turns the sign.
    if (sign == "and") is not is_negated:
        return _all_of(path, sign, alternatives)
    return _any_of(path, sign, alternatives)


def _any_of(path, word, alternatives):
    """Return the cases in which one of several formulas is true, given the cases of each."""
    cases = [case for cases in alternatives for case in cases]
    if all(not case.lows and not case.highs for case in cases):
        # Nothing is said of the inputs: one case.
        return [Case(outputs=_few(path, word, [p for case in cases for p in case.outputs]))]
    if len(cases) > _MOST_CASES:
        refuse(path, word, f"at most {_MOST_CASES} input boxes")
    return cases


def _comparisons(path, sign, parts, variables, is_negated):
    """Return the cases of a comparison of two terms, or of several, each with the next."""
    if len(parts) < 2:
        refuse(path, sign, f"({sign} LEFT RIGHT)")
    terms = [term_of(path, part, variables) for part in parts]
    signs = ("<=", ">=") if sign == "=" else (sign,)
    each = [
        [_comparison(path, sign, Word(_OPPOSITES[one] if is_negated else one, sign.line), *pair)]
        for pair in itertools.pairwise(terms)
        for one in signs
    ]
    return (_any_of if is_negated else _all_of)(path, sign, each)


def _comparison(path, word, sign, left, right):
    """Return the case of one comparison of two terms, with the word of the file for errors."""
    low, high = (left, right) if sign[0] == "<" else (right, left)
    term = Term().add(low).add(high, -1.0)
    weights = {name: weight for name, weight in term.weights.items() if weight != 0}
    kinds, strict = {name[0] for name in weights}, len(sign) == 1
    if not term.is_finite:
        refuse(path, word, "numbers that are finite in float64")
    if "X" not in kinds:
        return Case(outputs=[[Constraint(Term(term.constant, weights), strict)]])
    if len(weights) > 1:
        what = "an input and an output" if len(kinds) > 1 else "several inputs"
        refuse(path, word, f"bounds of single inputs, not a comparison of {what}")
    ((name, weight),) = weights.items()
    bound = -term.constant / weight + 0.0
    if not -1e308 < bound < 1e308:
        refuse(path, word, "bounds that are finite in float64")
    rest = Fraction(weight) * Fraction(bound) + Fraction(term.constant)
    if rest != 0:
        # What is rounded is rounded outwards, and not attained.
        bound = math.nextafter(bound, math.inf if weight > 0 else -math.inf)
        strict = True
    side = {name: Bound(bound, word, strict)}
    return Case(highs=side) if weight > 0 else Case(lows=side)


def _all_of(path, word, parts):
    """Return the cases in which several formulas are true, given the cases of each.

    What makes no difference between cases is joined first: so the time is in proportion to the
    file where that has one list of boxes.
    """
    common, several, conjunction, choices = Case(), [], [], []
    for cases in parts:
        if len(cases) > 1:
            several.append(cases)
            continue
        _tighten(common, cases[0])
        outputs = cases[0].outputs
        if len(outputs) == 1:
            conjunction += outputs[0]
        else:
            choices.append(outputs)
    total = [Case(common.lows, common.highs, _product(path, word, [conjunction], choices))]
    for cases in several:
        n_numbers = len(total[0].lows) + len(total[0].highs)
        n_cases = len(total) * len(cases)
        if n_cases > _MOST_CASES or n_cases * n_numbers > _MOST_NUMBERS:
            refuse(path, word, f"at most {_MOST_CASES} boxes, of {_MOST_NUMBERS} numbers in all")
        joined = [_join(path, word, one, other) for one in total for other in cases]
        # Boxes that do not meet have no point in common; where none do, the file is refused.
        total = [case for case in joined if case.empty_input() is None] or joined[:1]
    return total


def _join(path, word, one, other):
    outputs = _product(path, word, one.outputs, [other.outputs])
    case = Case(dict(one.lows), dict(one.highs), outputs)
    _tighten(case, other)
    return case


def _tighten(case, other):
    """Cut the box of a case, in place, to that of another."""
    for ends, more, sign in ((case.lows, other.lows, 1), (case.highs, other.highs, -1)):
        for name, bound in more.items():
            tightness = (sign * bound.value, bound.strict)
            if name not in ends or tightness > (sign * ends[name].value, ends[name].strict):
                ends[name] = bound


def _product(path, word, first, choices):
    """Return the disjunction of conjunctions that is true where `first` and all choices are."""
    for outputs in choices:
        if outputs == [[]] or first == [[]]:
            first = outputs if first == [[]] else first
            continue
        n_parts = len(first) * len(outputs)
        sizes = [sum(map(len, parts)) for parts in (first, outputs)]
        n_numbers = sizes[0] * len(outputs) + sizes[1] * len(first)
        if n_parts > _MOST_DISJUNCTS or n_numbers > _MOST_NUMBERS:
            refuse(path, word, f"at most {_MOST_DISJUNCTS} conjunctions of outputs")
        first = [[*left, *right] for left in first for right in outputs]
    return first


def _few(path, word, disjuncts):
    if len(disjuncts) > _MOST_DISJUNCTS:
        refuse(path, word, f"at most {_MOST_DISJUNCTS} conjunctions of outputs")
    return disjuncts
