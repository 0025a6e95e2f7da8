"""The process in which Marabou runs; a program of its own, started by `_marabou`.

Its arguments are the number of a connection and that of its parent's process. It says that it
is ready, and answers each task with a status and the values of the input variables. It ends with
its connection, and with its parent.
"""

import ctypes
import math
import os
import signal
import sys
from multiprocessing.connection import Connection

_PR_SET_PDEATHSIG = 1


def die_with(parent):
    """Have this process killed when its parent ends: Marabou does not look up while it works."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit()


def build(core, problem, clauses, limit):
    """Return an `InputQuery`: of one of the clauses, all variables are at most `limit`."""
    query = core.InputQuery()
    query.setNumberOfVariables(len(problem["lower"]))
    for variable, (low, high) in enumerate(zip(problem["lower"], problem["upper"], strict=True)):
        query.setLowerBound(variable, low)
        query.setUpperBound(variable, high)
    for variable in range(problem["n_inputs"]):
        query.markInputVariable(variable, variable)
    for variables, coefficients, constant in problem["equations"]:
        equation = core.Equation()
        for variable, coefficient in zip(variables, coefficients, strict=True):
            equation.addAddend(coefficient, variable)
        equation.setScalar(constant)
        query.addEquation(equation)
    for before, after in problem["relus"]:
        core.addReluConstraint(query, before, after)
    if len(clauses) == 1:
        for row in clauses[0]:
            query.setUpperBound(row, limit)
    else:
        cases = [[at_most(core, row, limit) for row in clause] for clause in clauses]
        core.addDisjunctionConstraint(query, cases)
    return query


def at_most(core, variable, limit):
    bound = core.Equation(core.Equation.LE)
    bound.addAddend(1.0, variable)
    bound.setScalar(limit)
    return bound


def solve(core, problem, clauses, limit, seconds):
    """Return Marabou's word for what it found, and the values of the inputs, as a list."""
    options = core.Options()
    options._verbosity = 0
    options._timeoutInSeconds = 0 if seconds is None else math.ceil(seconds)
    status, values, _ = core.solve(build(core, problem, clauses, limit), options, "")
    return status, [values[k] for k in range(problem["n_inputs"])] if values else []


def main(connection):
    try:
        from maraboupy import MarabouCore as core
    except ImportError as error:
        connection.send(("missing", f"{error}."))
        return
    connection.send(("ready", ""))
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(solve(core, *task))


if __name__ == "__main__":
    die_with(int(sys.argv[2]))
    main(Connection(int(sys.argv[1])))
