"""The one driver of per-sample evaluations: chunks, jobs, memory, progress."""

import pickle
import time
import warnings
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import nullcontext

import cloudpickle
import numpy as np
from joblib import Parallel, delayed, effective_n_jobs, hash, parallel_config
from joblib.parallel import get_active_backend
from sklearn.utils.validation import check_memory

from skrobust._code import NoSourceError
from skrobust._keys import code_of, digest, versions
from skrobust._validation import check_seed
from skrobust.exceptions import LostWorkerWarning, UncachedWarning

__all__ = ["evaluate_in_chunks", "model_key"]

_MOST_LOSSES = 3  # in a row, without a chunk that ends in between
# How long a task should take, for each worker that there is. On a cluster of Dask, the driver and
# the scheduler have about 3 ms of work with a task, however small.
_TASK_SECONDS = 0.02
_LEFT_TASKS = 64  # that the rest is cut into besides two a worker: it may be slower than the start
_TASK_BYTES = 2**20  # of the rows of a task with several chunks: tasks are messages, not files
_MOST_PARTS = 256  # small results that wait to be joined


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
    results. Where jobs are processes, here or on a cluster, what all chunks share is pickled once
    and handed over as one array, which joblib's backends send to each place once; and chunks that
    were under way where a worker died are evaluated again. The more workers there are, the more
    quick chunks are handed over as one task, and fewer towards the end.

    Parameters
    ----------
    measure : callable
        ``measure(model, rows, labels, seed)`` returns a dict of arrays, one entry for each
        row. All that it holds, data and users' code, is a part of the key in `memory`.
    model : object
        Handed to `measure`, and to the processes of `n_jobs`; what is read or encoded once for
        all chunks belongs here.
    rows : ndarray of shape (n_samples, n_features)
    labels : ndarray of shape (n_samples,) or None
    fingerprint : callable
        ``fingerprint()`` returns what stands for `model` in the key in `memory`, as arrays and
        plain values; see `model_key`. Called only where there is a `memory`.
    chunk_size : int, default=1024
    random_state : int, RandomState instance or None, default=None
        With a `memory`, None means 0: a fresh seed would never find what is kept.
    n_jobs : int or None, default=None
        As in `joblib.Parallel`; any joblib backend.
    memory : None, str or joblib.Memory, default=None
        Where the result of each chunk is kept, so that an evaluation that was killed goes on
        where it stopped. The key holds all that a result follows from: the model, the rows and
        labels, `measure` with its parameters, the versions of skrobust, Python, torch, numpy
        and the other packages that compute (an upgrade computes anew), and the code of what
        users wrote, with the globals that it names. An entry that cannot be read is computed
        again.
    verbose : int, default=0
        Progress messages, as in `joblib.Parallel`.
    on_part : callable, default=None
        ``on_part(part)`` is called with what `measure` returned, in order: of one chunk, or of
        several that were one task.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    Exception
        Whatever tells of a lost worker, where that happens three times in a row and no further
        chunk ends: a chunk that needs more memory than there is takes each worker down.

    Warns
    -----
    LostWorkerWarning
        If a worker died.
    UncachedWarning
        If there is a `memory`, but the source of users' code cannot be had, so that nothing
        is kept: a later edit of that code would not be seen.
    """
    chunk_size = int(chunk_size)  # small integers of NumPy would overflow in sums
    starts = range(0, len(rows), chunk_size)
    if memory is not None and random_state is None:
        random_state = 0
    seeds = check_seed(random_state).randint(2**31 - 1, size=len(starts))
    key = None if memory is None else _key(measure, fingerprint)
    # The key stands for both; and joblib cannot hash functions without a name.
    kept = check_memory(None if key is None else memory)
    kept = kept.cache(_measure, ignore=["question", "place"])
    # A single chunk is not worth a way to another process, and back.
    alone = parallel_config("sequential") if len(starts) == 1 else nullcontext()
    parts, n_losses = _Parts(), 0
    with alone:
        question, place = _packed((measure, model), n_jobs)
        n_workers = effective_n_jobs(n_jobs)
        while parts.n_chunks < len(starts):
            n_before = parts.n_chunks
            tasks = _Tasks(seeds.tolist(), n_before, n_workers, rows[:chunk_size].nbytes)
            results = Parallel(n_jobs=n_jobs, verbose=verbose, return_as="generator")(
                delayed(_measure_all)(
                    kept,
                    question,
                    place,
                    _chunk(rows, labels, first * chunk_size, len(some) * chunk_size),
                    chunk_size,
                    some,
                    key,
                )
                for first, some in tasks
            )
            try:
                for part, n_chunks, seconds in results:
                    tasks.ended(n_chunks, seconds)
                    parts.add(part, n_chunks)
                    if on_part is not None:
                        on_part(part)
            except Exception as error:
                n_losses = n_losses + 1 if parts.n_chunks == n_before else 1
                if not _tells_of_a_lost_worker(error) or n_losses == _MOST_LOSSES:
                    raise
                warnings.warn(
                    f"A worker died ({type(error).__name__}) after {parts.n_chunks} of "
                    f"{len(starts)} chunks; the others are evaluated again.",
                    LostWorkerWarning,
                    stacklevel=2,
                )
    return parts.joined()


def model_key(model, rows):
    """Return what tells a model from others: what it is made of, its code, and what it does.

    The outputs at a few rows are a second look, at what neither weights nor code show.

    Raises
    ------
    NoSourceError
        If the source of a user's module, or of another part of the model, cannot be had.
    """
    outputs = model.replay(model.rows(rows[:64])).double().cpu().numpy()
    return model.fingerprint(), code_of(vars(model)), outputs


def _key(measure, fingerprint):
    """Return the key of an evaluation but for its chunk; None if nothing may be kept."""
    try:
        return digest((versions(), measure, fingerprint()))
    except NoSourceError as error:
        warnings.warn(
            f"Got a memory, but expected code whose source can be had: that of {error} cannot, "
            "and if it changed, an old result would be returned. So nothing is kept. Define it "
            "in a file, or set memory=None.",
            UncachedWarning,
            stacklevel=2,
        )
        return None


class _Tasks:
    """The chunks from `first` on, in tasks of several where they are quick.

    The driver hands out so many tasks a second and no more: what it takes with one must be little
    beside what each of many workers does with it. Towards the end tasks are small again, so that
    no worker has long to go when the others are done.
    """

    def __init__(self, seeds, first, n_workers, chunk_bytes=0):
        self.seeds = seeds
        self.n_handed = first
        self.n_workers = n_workers
        self.most = _TASK_BYTES // max(1, chunk_bytes)
        self.n_ended, self.seconds = 0, 0.0

    def ended(self, n_chunks, seconds):
        """Note how long some chunks took."""
        # In this order, as joblib's threads ask for sizes meanwhile: never chunks of no time.
        self.seconds += seconds
        self.n_ended += n_chunks

    def __iter__(self):
        """Yield the number of the first chunk of a task, and the seeds of its chunks."""
        while self.n_handed < len(self.seeds):
            first, self.n_handed = self.n_handed, self.n_handed + self._size()
            yield first, self.seeds[first : self.n_handed]

    def _size(self):
        if self.n_workers == 1 or self.n_ended == 0:
            return 1  # also after a loss: alone, a chunk that kills its worker harms no other
        enough = _TASK_SECONDS * self.n_workers * self.n_ended / max(self.seconds, 1e-9)
        fair = (len(self.seeds) - self.n_handed) / (2 * self.n_workers + _LEFT_TASKS)
        return max(1, int(min(enough, fair, self.most)))


class _Parts:
    """What chunks returned, in their order; many small arrays are joined on the way.

    Millions of arrays of one entry would take thousands of bytes for each.
    """

    def __init__(self):
        self.n_chunks = 0
        self._blocks, self._latest = [], []

    def add(self, part, n_chunks):
        self.n_chunks += n_chunks
        self._latest.append(part)
        if len(self._latest) == _MOST_PARTS:
            self._blocks.append(_joined(self._latest))
            self._latest = []

    def joined(self):
        return _joined(self._blocks + self._latest)


def _joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _chunk(rows, labels, start, size):
    """Return the rows and labels of a chunk, in a tuple: what dask keeps with the task.

    It would send arrays to one worker, ahead of the task, and lose them with that worker. To the
    hash in the memory, a large array that joblib maps for its processes is no plain one.
    """
    at = slice(start, start + size)
    return np.asarray(rows[at]), None if labels is None else np.asarray(labels[at])


def _packed(question, n_jobs):
    """Return what all chunks share, as it is handed to each, and the name it goes by elsewhere.

    For other processes it is one array: joblib maps a large one to memory for its processes, and
    scatters it once over a cluster, but would pickle objects anew for each chunk.
    """
    backend, _ = get_active_backend()
    # A cluster is elsewhere even if it has one worker; other backends are not asked for one job.
    is_elsewhere = backend.default_n_jobs != 1 or effective_n_jobs(n_jobs) != 1
    if getattr(backend, "supports_sharedmem", False) or not is_elsewhere:
        return question, None
    array = np.frombuffer(cloudpickle.dumps(question), dtype=np.uint8)
    return array, hash(array)


_unpacked = {}  # in a worker: the question of the evaluation that it works for


def _unpack(question, place):
    if place is None:
        return question
    known = _unpacked.get(place)
    if known is None:
        known = pickle.loads(question)
        _unpacked.clear()  # workers outlive evaluations, and networks may be large
        _unpacked[place] = known
    return known


def _tells_of_a_lost_worker(error):
    # By its name, since dask's package need not be here.
    return isinstance(error, BrokenExecutor | CancelledError) or "KilledWorker" in {
        kind.__name__ for kind in type(error).__mro__
    }


def _measure_all(kept, question, place, chunks, size, seeds, key):
    """Return what the chunks of one task say, joined; how many they are; and the seconds."""
    start = time.perf_counter()
    parts = [
        kept(question, place, _chunk(*chunks, k * size, size), seed, key)
        for k, seed in enumerate(seeds)
    ]
    whole = parts[0] if len(parts) == 1 else _joined(parts)
    return whole, len(parts), time.perf_counter() - start


def _measure(question, place, chunk, seed, key):
    measure, model = _unpack(question, place)
    return measure(model, *chunk, seed)
