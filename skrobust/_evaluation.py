"""The one driver of per-sample evaluations: chunks, jobs, memory, progress."""

import joblib
import numpy as np
from joblib import Parallel, delayed
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_memory

__all__ = ["evaluate_in_chunks", "model_key"]


def evaluate_in_chunks(
    measure,
    model,
    rows,
    labels=None,
    *,
    fingerprint,
    chunk_size=1024,
    random_state=None,
    n_jobs=None,
    memory=None,
    verbose=0,
    on_part=None,
):
    """Apply `measure` to chunks of samples, and join what it returns.

    The chunks, and the random seed of each, do not depend on `n_jobs`; so neither do the
    results.

    Parameters
    ----------
    measure : callable
        ``measure(model, rows, labels, seed)`` returns a dict of arrays, one entry for each
        row. It must be picklable; its pickle is a part of the key in `memory`.
    model : object
        Handed to `measure`.
    rows : ndarray of shape (n_samples, n_features)
    labels : ndarray of shape (n_samples,) or None
    fingerprint : callable
        ``fingerprint()`` returns what stands for `model` in the key in `memory`, as arrays and
        plain values. Called only where there is a `memory`.
    chunk_size : int, default=1024
    random_state : int, RandomState instance or None, default=None
        None stands for 0 where there is a `memory`, which would know nothing again otherwise.
    n_jobs : int or None, default=None
        As in `joblib.Parallel`; any joblib backend.
    memory : None, str or joblib.Memory, default=None
        Where the result of each chunk is kept, so that an evaluation that was killed goes on
        where it stopped.
    verbose : int, default=0
        Progress messages, as in `joblib.Parallel`.
    on_part : callable, default=None
        ``on_part(part)`` is called with what `measure` returned, chunk by chunk, in order.

    Returns
    -------
    dict of str to ndarray
    """
    starts = range(0, len(rows), chunk_size)
    if memory is not None and random_state is None:
        random_state = 0
    seeds = check_random_state(random_state).randint(2**31 - 1, size=len(starts))
    kept = check_memory(memory).cache(_measure, ignore=["model"])
    key = None if memory is None else joblib.hash(fingerprint())
    coming = Parallel(n_jobs=n_jobs, verbose=verbose, return_as="generator")(
        delayed(kept)(
            measure,
            model,
            rows[start : start + chunk_size],
            None if labels is None else labels[start : start + chunk_size],
            int(seed),
            key,
        )
        for start, seed in zip(starts, seeds, strict=True)
    )
    parts = []
    for part in coming:
        parts.append(part)
        if on_part is not None:
            on_part(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def model_key(model, rows):
    """Return what tells a model from others: what it is made of, and what it does."""
    few = model.replay(model.rows(rows[:64])).double().cpu().numpy()
    return model.fingerprint(), few


def _measure(measure, model, rows, labels, seed, key):
    return measure(model, rows, labels, seed)
