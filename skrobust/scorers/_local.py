"""Local robustness of each sample, by an attack or a verifier: chunks, jobs, memory, progress."""

from dataclasses import fields
from functools import partial

import numpy as np

from skrobust.scorers._base import as_tensors, attack_chunk
from skrobust.verification import Verdict, Verification, VerificationBuilder

__all__ = ["Counts", "attack_in_chunks", "decide_by_verifier"]


def decide_by_verifier(
    scorer, verifier, encoding, sample, *, whole=None, counts=None, recorder=None, **options
):
    """Take the steps of a verifier one after the other, each spread over chunks and jobs.

    Parameters
    ----------
    scorer : PropertyScorer
        Has the property, the `timeout`, and how work is shared out.
    verifier : Verifier
    encoding : Encoding
    sample : Sample
    whole : Sample, default=None
        What `sample` is a part of; see `RobustnessScorer._in_chunks`.
    counts : Counts, default=None
        Is told of each chunk.
    recorder : Recorder, default=None
        Keeps the evidence, in the job that decides: what is there is not decided again.
    **options
        Of `evaluate_in_chunks`, in place of the scorer's own.

    Returns
    -------
    Verification
    """
    x, labels, _ = as_tensors(sample.model, sample.rows, sample.labels, 0)
    verdicts = VerificationBuilder(x)
    # The folder is a part of the key in the memory; what writes to it is as large as the network.
    folder = None if recorder is None else recorder.place
    for step in verifier.steps(encoding):
        turns = step.turns(scorer.timeout, verdicts)
        if counts is not None and turns:
            counts.begin(step.name, np.concatenate([index for index, _ in turns]))
        for index, limit in turns:
            arrays = scorer._in_chunks(
                partial(
                    _decide,
                    decide=step.decide,
                    property=scorer.property,
                    timeout=limit,
                    evidence=folder,
                ),
                sample[index],
                state=(step.encoding, step.name, recorder),
                whole=sample if whole is None else whole,
                chunk_size=min(scorer.chunk_size, step.chunk_size or scorer.chunk_size),
                on_part=None if counts is None else counts.add,
                **options,
            )
            step.enter(verdicts, index, Verification(**arrays), x, labels)
    return verdicts.result()


def _decide(state, rows, labels, seed, *, decide, property, timeout, evidence):
    """Decide a chunk; property and folder are there as parts of the key in the memory."""
    encoding, name, recorder = state
    x, labels, generator = as_tensors(encoding.network, rows, labels, seed)
    answer = decide(encoding, x, labels, timeout=timeout, generator=generator)
    if recorder is not None:
        answer = recorder.keep(x, labels, answer, name)
    return {field.name: getattr(answer, field.name) for field in fields(answer)}


def attack_in_chunks(scorer, attack, sample, **options):
    """Attack each sample, in chunks and jobs; the verdicts are "falsified" or "unknown".

    Returns
    -------
    dict of str to ndarray
        "verdicts", "margins" and "counterexamples".
    """
    arrays = scorer._in_chunks(
        partial(attack_chunk, property=scorer.property, attack=attack), sample, **options
    )
    verdicts = np.where(arrays["holds"], Verdict.UNKNOWN, Verdict.FALSIFIED).astype("<U9")
    names = ("margins", "counterexamples")
    return {"verdicts": verdicts} | {name: arrays[name] for name in names}


class Counts:
    """A progress bar with counts of verdicts, or nothing.

    Parameters
    ----------
    verbose : int
        0 for nothing.
    n_samples : int
    """

    def __init__(self, verbose, n_samples):
        self.verdicts = np.full(n_samples, Verdict.UNKNOWN, dtype=object)
        self.bar = _progress_bar() if verbose else None

    def __enter__(self):
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.stop()

    def begin(self, name, index):
        """Say that a step starts on the samples at `index`."""
        self.coming = index
        if self.bar is not None:
            self.task = self.bar.add_task(name, total=len(index), counts=self._text())

    def add(self, part):
        """Count one more chunk, a dict with "verdicts"."""
        verdicts = part["verdicts"]
        here, self.coming = np.split(self.coming, [len(verdicts)])
        decided = verdicts != Verdict.UNKNOWN
        self.verdicts[here[decided]] = verdicts[decided]
        if self.bar is not None:
            self.bar.update(self.task, advance=len(here), counts=self._text())

    def _text(self):
        return ", ".join(f"{(self.verdicts == v).sum()} {v}" for v in Verdict)


def _progress_bar():
    try:
        from rich import progress
    except ImportError as error:
        raise ImportError(
            "Got verbose=1, but expected the package rich for the progress bar: "
            "pip install skrobust[plots], or set verbose=0."
        ) from error
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[counts]}"),
        progress.TimeElapsedColumn(),
    )
