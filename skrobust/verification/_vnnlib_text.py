"""The text of VNNLIB files: words, commands, and linear terms of variables."""

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from skrobust._files import read_limited

__all__ = ["Term", "Word", "commands", "refuse", "term_of", "words_of"]

_MOST_BYTES = 2**26
_MOST_WORDS = 2**21  # of one command
_DEEPEST = 100
_WORDS = re.compile(r"[()]|[^\s();]+|;[^\n]*|\n")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
_LONGEST_SHOWN = 40


class Word(str):
    """One word of a file, which knows its line."""

    __slots__ = ("line",)

    def __new__(cls, text, line):
        word = super().__new__(cls, text)
        word.line = line
        return word


def refuse(path, word, expectation):
    """Raise a ValueError that names the file, the line and the word."""
    while isinstance(word, list) and word:
        word = word[0]
    line = getattr(word, "line", None)
    where = f"{path}" if line is None else f"{path}, line {line}"
    shown = word if isinstance(word, str) else "()"
    if len(shown) > _LONGEST_SHOWN:
        shown = shown[:_LONGEST_SHOWN] + "..."
    raise ValueError(f"Got {shown!r} in {where}, but expected {expectation}.")


def words_of(path):
    """Yield the `Word`s of a file, packed by gzip or not, without comments.

    Raises
    ------
    ValueError
        If the file cannot be read as text, or is too large.
    """
    if not isinstance(path, str | os.PathLike) or not Path(path).is_file():
        raise ValueError(f"Got vnnlib={path!r}, but expected the path of a VNNLIB file.")
    try:
        text = read_limited(path, _MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"Got {path}, which is no text: {error}.") from error
    line = 1
    for match in _WORDS.finditer(text):
        word = match.group()
        if word == "\n":
            line += 1
        elif word[0] != ";":
            yield Word(word, line)


def commands(path):
    """Yield the commands of a file, one after the other, as nested lists of `Word`s.

    It takes time in proportion to the file.

    Raises
    ------
    ValueError
        If brackets do not match, or nest too deeply.
    """
    stack, count, opened = [], 0, None
    for word in words_of(path):
        count += 1
        if count > _MOST_WORDS:
            refuse(path, word, f"at most {_MOST_WORDS} words in a command")
        if word == "(":
            opened = word if not stack else opened
            stack.append([])
            if len(stack) > _DEEPEST:
                refuse(path, word, f"brackets that nest at most {_DEEPEST} deep")
        elif not stack:
            refuse(path, word, "a command in brackets, such as (assert (<= X_0 1.0))")
        elif word == ")":
            done = stack.pop()
            # The arguments of a variable that is declared as a function: none.
            is_none = len(stack) == 1 and len(stack[0]) == 2 and stack[0][0] == "declare-fun"
            if not done and not is_none:
                refuse(path, word, "a command or a term after the opening bracket")
            if stack:
                stack[-1].append(done)
            else:
                count = 0
                yield done
        else:
            stack[-1].append(word)
    if stack:
        refuse(path, opened, "a bracket that is closed before the end of the file")


@dataclass
class Term:
    """A sum of variables times numbers, and a number.

    Attributes
    ----------
    weights : dict of str to float
    constant : float
    """

    constant: float = 0.0
    weights: dict = field(default_factory=dict)

    def add(self, other, factor=1.0):
        """Add another term, times a factor."""
        self.constant += factor * other.constant
        for name, weight in other.weights.items():
            self.weights[name] = self.weights.get(name, 0.0) + factor * weight
        return self

    @property
    def is_finite(self):
        return all(map(math.isfinite, (self.constant, *self.weights.values())))


def term_of(path, expression, variables):
    """Return an expression of variables and numbers as a `Term`, or refuse it.

    Parameters
    ----------
    path : str
    expression : Word or list
    variables : collection of str
        Those that are declared.
    """
    if isinstance(expression, Word):
        if expression in variables:
            return Term(0.0, {str(expression): 1.0})
        if not _NUMBER.match(expression):
            refuse(path, expression, "a number, or a variable that is declared")
        return _finite(path, expression, Term(float(expression)))
    sign, *parts = expression
    if sign not in ("+", "-", "*") or not parts:
        refuse(path, sign, "+, - or * with terms, a number, or a variable")
    parts = [term_of(path, part, variables) for part in parts]
    if sign == "*":
        total = Term(1.0)
        for part in parts:
            if total.weights and part.weights:
                refuse(path, sign, "a product in which at most one factor has variables")
            scale, other = (total, part) if part.weights else (part, total)
            total = Term().add(other, scale.constant)
    elif sign == "-" and len(parts) == 1:
        total = Term().add(parts[0], -1.0)
    else:
        total = parts[0]
        for part in parts[1:]:
            total.add(part, 1.0 if sign == "+" else -1.0)
    return _finite(path, sign, total)


def _finite(path, word, term):
    if not term.is_finite:
        refuse(path, word, "numbers that are finite in float64")
    return term
