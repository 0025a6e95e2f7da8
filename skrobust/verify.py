"""Decide a query in files: ``python -m skrobust.verify NET.onnx QUERY.vnnlib --timeout 120``.

The first line that is printed is the answer, as the verification competitions have it:

``sat``
    A point satisfies the query by the network's own outputs. The point and its outputs follow, as
    ``((X_0 ...) ... (Y_0 ...))``.
``unsat``
    It is proved that no point does, for the network in exact arithmetic.
``timeout``
    The time was up before that.
``unknown``
    The search ended without an answer.

It ends with status 0 after ``sat`` and ``unsat``, 1 after ``timeout`` and ``unknown``, and 2 where
the files or the arguments are not understood; what is wrong with them goes to standard error, and
nothing to standard output.
"""

import argparse
import inspect
import sys
import time

from skrobust._validation import check_integer, check_real
from skrobust.attacks import PGD, AutoPGD
from skrobust.exceptions import UnsupportedModelError
from skrobust.verification import Bounds, Cascade, Exact, Reason, read_instances

__all__ = ["main"]

_FIRST_SECONDS = 5.0  # for each box, where there are several; then four times that, and so on


def main(arguments=None):
    """Read the command line, decide the query, and print the answer.

    Parameters
    ----------
    arguments : list of str, default=None
        Those of the command line if None.

    Returns
    -------
    int
        The exit status: 0 for sat and unsat, 1 for timeout and unknown, 2 for bad input.

    Examples
    --------
    >>> import tempfile, torch
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.verification import export_query
    >>> from skrobust.verify import main
    >>> network = torch.nn.Linear(2, 2)
    >>> _ = torch.nn.init.eye_(network.weight), torch.nn.init.zeros_(network.bias)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = export_query(network, ClassificationRobustness(0.1), [0.8, 0.5], 0, folder)
    ...     status = main([*map(str, files), "--timeout", "60"])
    unsat
    >>> status
    0
    """
    started = time.perf_counter()
    options = _parser().parse_args(arguments)
    # A query has one point: a long attack costs little of its time, and finds what short runs
    # from near the center miss.
    stages = [PGD(n_restarts=3), Bounds(), AutoPGD(50, n_restarts=10), Exact()]
    verifier = Cascade(stages, timeout=None)
    try:
        check_real("timeout", options.timeout, low=0, closed="neither")
        check_integer("seed", options.seed)
        more = _evidence(verifier, options.evidence)
        instances = read_instances(options.network, options.query)
        search = _Search(verifier, instances, started + options.timeout, options.seed, more)
        answer, witness = search.run()
    except (ValueError, UnsupportedModelError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(answer)
    if witness is not None:
        print(_shown(*witness))
    return 0 if answer in ("sat", "unsat") else 1


def _parser():
    summary, _, answers = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m skrobust.verify",
        description=summary.partition(":")[0] + ".",
        epilog=answers.replace("``", ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("network", help="ONNX file")
    parser.add_argument("query", help="VNNLIB file, version 1.0")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds in all (120)")
    parser.add_argument("--seed", type=int, default=0, help="of the attacks (0)")
    parser.add_argument("--evidence", metavar="FOLDER", help="where to write evidence")
    return parser


def _evidence(verifier, folder):
    """Return the options by which a verifier is asked for evidence, one folder for each box."""
    if folder is None:
        return lambda box: {}
    if "evidence" not in inspect.signature(verifier.verify).parameters:
        raise ValueError(f"Got --evidence {folder}, but this version writes no evidence.")
    return lambda box: {"evidence": f"{folder}/box_{box}"}


class _Search:
    """Ask for each box of a query, in turns of time that grow, until all are decided.

    Parameters
    ----------
    verifier : Verifier
    instances : list of Instance
    end : float
        When the time is up, by `time.perf_counter`.
    seed : int
    more : callable
        ``more(box)`` returns further options of `verify`.
    """

    def __init__(self, verifier, instances, end, seed, more):
        self.verifier, self.instances = verifier, instances
        self.end, self.seed, self.more = end, seed, more

    def run(self):
        """Return the answer, and the witness or None."""
        open_boxes, reasons = list(range(len(self.instances))), set()
        seconds = float("inf") if len(open_boxes) == 1 else _FIRST_SECONDS
        while open_boxes:
            late = []
            for box in open_boxes:
                left = self.end - time.perf_counter()
                if left <= 0:
                    return "timeout", None
                verdict, reason, witness = self._ask(box, min(left, seconds))
                if witness is not None:
                    return "sat", witness
                if reason == Reason.TIME_OUT:
                    late.append(box)
                elif verdict != "verified":
                    reasons.add(reason)
            if late and seconds >= self.end - time.perf_counter():
                return "timeout", None
            open_boxes, seconds = late, 4 * seconds
        return ("unknown" if reasons else "unsat"), None

    def _ask(self, box, seconds):
        """Return the verdict and the reason of one box, and a witness or None."""
        instance = self.instances[box]
        result = self.verifier.verify(
            instance.estimator,
            instance.x,
            property=instance.property,
            timeout=seconds,
            random_state=self.seed,
            **self.more(box),
        )
        verdict, reason, witness = result.verdicts[0], result.reasons[0], None
        if verdict == "falsified":
            witness = instance.witness(result.counterexamples[0])
        return verdict, reason, witness


def _shown(inputs, outputs):
    """Return a witness as the competitions write it."""
    pairs = [f"(X_{i} {value!r})" for i, value in enumerate(inputs.tolist())]
    pairs += [f"(Y_{i} {value!r})" for i, value in enumerate(outputs.tolist())]
    return "(" + "\n ".join(pairs) + ")"


if __name__ == "__main__":
    sys.exit(main())
