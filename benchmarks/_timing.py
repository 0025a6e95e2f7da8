"""Time two sides in turn, in one process and one thread, and print their ratio.

The seconds are the processor's, in which other programs on the machine show little.
"""

import statistics
import time

import torch


def compare(claim, ours, reference, *, repeats=7):
    """Run both sides alternately; print and return the median of the ratios of their times.

    Parameters
    ----------
    claim : str
        What the row of the table says.
    ours, reference : callable
        Without arguments; one untimed call each comes first.
    repeats : int, default=7

    Returns
    -------
    float
        Median of time(reference) / time(ours), pair by pair.
    """
    torch.set_num_threads(1)
    times = [(_timed(ours), _timed(reference)) for _ in range(repeats + 1)][1:]
    ratios = [theirs / our for our, theirs in times]
    ratio = statistics.median(ratios)
    seconds = [statistics.median(side) for side in zip(*times, strict=True)]
    print(
        f"| {claim} | {seconds[0]:.3f} | {seconds[1]:.3f} | {ratio:.2f} "
        f"({min(ratios):.2f}-{max(ratios):.2f}) |",
        flush=True,
    )
    return ratio


def header():
    print("| | ours, s | reference, s | reference / ours (range) |\n|---|---|---|---|")


def _timed(function):
    start = time.process_time()
    function()
    return time.process_time() - start
