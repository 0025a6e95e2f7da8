"""What the driver of evaluations costs: time of this process, tasks, and bytes that are sent."""

import time
from contextlib import contextmanager

import joblib
import numpy as np
from joblib._parallel_backends import AutoBatchingMixin

from skrobust import _evaluation
from skrobust._evaluation import evaluate_in_chunks


def nothing(model, rows, labels, seed):
    """Return what a verifier does of its points, without any work."""
    n = len(rows)
    texts = {name: np.full(n, "", dtype=object) for name in ("decided_by", "notes", "evidence")}
    numbers = {name: np.zeros(n) for name in ("seconds", "lower")}
    verdicts = {"verdicts": np.full(n, "unknown"), "counterexamples": rows.astype(np.float32)}
    return verdicts | texts | numbers


def evaluate(n_points, n_features, chunk_size, n_jobs=2, model=None):
    rows = np.zeros((n_points, n_features))
    return evaluate_in_chunks(
        nothing, model, rows, fingerprint=str, chunk_size=chunk_size, random_state=0, n_jobs=n_jobs
    )


def seconds_here(function):
    """Return the processor time of this process, in all of its threads."""
    start = time.process_time()
    function()
    return time.process_time() - start


@contextmanager
def one_chunk_a_task():
    """Put no quick chunks into one task: neither joblib nor the driver does it with slow ones."""
    kept = AutoBatchingMixin.compute_batch_size, _evaluation._TASK_SECONDS
    AutoBatchingMixin.compute_batch_size = lambda self: 1
    _evaluation._TASK_SECONDS = 0.0
    try:
        yield
    finally:
        AutoBatchingMixin.compute_batch_size, _evaluation._TASK_SECONDS = kept


def costs(n_tasks, n_features):
    """Return seconds a task, a chunk where many go in one task, and a point in large chunks.

    For the backend of the context. The first call starts the workers, and is not measured.
    """
    evaluate(8, n_features, 1)
    with one_chunk_a_task():
        task = seconds_here(lambda: evaluate(n_tasks, n_features, 1)) / n_tasks
    chunk = seconds_here(lambda: evaluate(4 * n_tasks, n_features, 1)) / (4 * n_tasks)
    size, n_chunks = 1024, max(2, n_tasks // 10)
    with one_chunk_a_task():
        whole = seconds_here(lambda: evaluate(size * n_chunks, n_features, size))
    point = max(0.0, whole - n_chunks * task) / (size * n_chunks)
    return {"task": task, "chunk": chunk, "point": point}


class DaskTraffic:
    """The tasks that a client's scheduler saw, and the bytes that its process sent.

    As a context: the counts are of what happens within.
    """

    def __init__(self, client):
        self.client = client

    def __enter__(self):
        import distributed

        self.places = (distributed.comm.utils.protocol, distributed.protocol.core)
        self.dumps = distributed.protocol.core.dumps
        self.n_bytes = 0

        def counted(message, *args, **kwargs):
            frames = self.dumps(message, *args, **kwargs)
            self.n_bytes += sum(memoryview(frame).nbytes for frame in frames)
            return frames

        for place in self.places:
            place.dumps = counted
        self.client.get_task_stream()  # installs what records tasks, where nothing did
        self.start = time.time()
        return self

    def __exit__(self, *error):
        for place in self.places:
            place.dumps = self.dumps
        self.tasks = [
            task
            for task in self.client.get_task_stream(start=self.start)
            if str(task["key"]).startswith(("batch_of", "mixed_batch_of"))
        ]

    @property
    def seconds_of_work(self):
        """Seconds that tasks took on the workers, by the clock."""
        return sum(
            part["stop"] - part["start"]
            for task in self.tasks
            for part in task["startstops"]
            if part["action"] == "compute"
        )


def dask_cluster():
    """Return two worker processes of one thread each, with the scheduler in this process."""
    from distributed import LocalCluster

    return LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)


def on(backend):
    return joblib.parallel_config(backend)
