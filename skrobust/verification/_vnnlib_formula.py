"""What a VNNLIB file asserts: boxes of inputs, each with a condition on the outputs."""

import re
from dataclasses import dataclass, field

from skrobust.verification._vnnlib_text import Term, Word, commands, refuse, term_of

__all__ = ["Case", "Constraint", "Statement", "read_statement"]

_MOST_CASES = 10_000
_MOST_DISJUNCTS = 10_000
_MOST_NUMBERS = 10**7  # of all boxes
_NAME = re.compile(r"([XY])_(0|[1-9]\d{0,8})\Z", re.ASCII)


@dataclass(frozen=True, eq=False)
class Constraint:
    """A claim that a `Term` of the outputs is at most 0."""

    term: Term

    def holds(self, outputs):
        """Return whether it is true of outputs, a list of `fractions.Fraction`, exactly."""
        kind = type(outputs[0])
        total = kind(self.term.constant)
        for name, weight in self.term.weights.items():
            total += kind(weight) * outputs[int(name[2:])]
        return total <= 0


@dataclass(frozen=True, eq=False)
class Case:
    """One box, and what is asked of the outputs in it.

    Parameters
    ----------
    lows, highs : dict of str to (float, Word)
        Bounds of the inputs, with the words that gave them.
    outputs : list of list of Constraint
        A disjunction of conjunctions. That of nothing is always true: ``[[]]``.
    """

    lows: dict = field(default_factory=dict)
    highs: dict = field(default_factory=dict)
    outputs: list = field(default_factory=lambda: [[]])

    def holds(self, outputs):
        """Return whether the condition is true of outputs, as `Constraint.holds` does."""
        return any(all(part.holds(outputs) for part in parts) for parts in self.outputs)


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
    variables, parts, word = {}, [], None
    for command in commands(path):
        word = command[0]
        if word == "declare-const" or word == "declare-fun":
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
        low, high = case.lows[name][0], case.highs[name][0]
        if low > high:
            later = max(case.lows[name][1], case.highs[name][1], key=lambda word: word.line)
            expectation = f"a box that is not empty: {name} lies between {low} and {high}"
            refuse(path, later, expectation)


# -- formulas --


def _cases_of(path, formula, variables):
    """Return the cases of one formula: boxes that it leaves open, with conditions on outputs."""
    if isinstance(formula, Word):
        refuse(path, formula, "a formula in brackets: and, or, <= or >=")
    sign, *parts = formula
    if not isinstance(sign, Word) or sign not in ("and", "or", "<=", ">="):
        refuse(path, sign, "and, or, <= or >=")
    if sign in ("<=", ">="):
        return [_comparison(path, sign, parts, variables)]
    if not parts:
        refuse(path, sign, f"{sign} with formulas")
    alternatives = [_cases_of(path, part, variables) for part in parts]
    if sign == "and":
        return _all_of(path, sign, alternatives)
    cases = [case for cases in alternatives for case in cases]
    if all(not case.lows and not case.highs for case in cases):
        # Nothing is said of the inputs: one case.
        return [Case(outputs=_few(path, sign, [p for case in cases for p in case.outputs]))]
    if len(cases) > _MOST_CASES:
        refuse(path, sign, f"at most {_MOST_CASES} input boxes")
    return cases


def _comparison(path, sign, parts, variables):
    """Return the case of one comparison."""
    if len(parts) != 2:
        refuse(path, sign, f"({sign} LEFT RIGHT)")
    left, right = (term_of(path, part, variables) for part in parts)
    term = left.add(right, -1.0) if sign == "<=" else right.add(left, -1.0)
    weights = {name: weight for name, weight in term.weights.items() if weight != 0}
    kinds = {name[0] for name in weights}
    if not term.is_finite:
        refuse(path, sign, "numbers that are finite in float64")
    if "X" not in kinds:
        return Case(outputs=[[Constraint(Term(term.constant, weights))]])
    if len(weights) > 1:
        what = "an input and an output" if len(kinds) > 1 else "several inputs"
        refuse(path, sign, f"bounds of single inputs, not a comparison of {what}")
    ((name, weight),) = weights.items()
    bound = -term.constant / weight + 0.0
    if not -1e308 < bound < 1e308:
        refuse(path, sign, "bounds that are finite in float64")
    side = {name: (bound, sign)}
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
        total = [_join(path, word, one, other) for one in total for other in cases]
    return total


def _join(path, word, one, other):
    outputs = _product(path, word, one.outputs, [other.outputs])
    case = Case(dict(one.lows), dict(one.highs), outputs)
    _tighten(case, other)
    return case


def _tighten(case, other):
    """Cut the box of a case, in place, to that of another."""
    for ends, more, sign in ((case.lows, other.lows, 1), (case.highs, other.highs, -1)):
        for name, (value, at) in more.items():
            if name not in ends or sign * value > sign * ends[name][0]:
                ends[name] = (value, at)


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
