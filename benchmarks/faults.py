"""Many evaluations under faults drawn at random: what is lost, what changes, what is left behind.

A sweep over rows, in chunks, with a `memory` and two worker processes. In each round one fault is
put in: a worker is killed, the process that asks is killed or interrupted, entries of the memory
are cut short or overwritten, no file can grow (as on a full disk), or a solver process crashes or
runs out of time. Then the same sweep is asked for again, in a fresh process, and must give what an
undisturbed one gives. At the end it is counted which processes and which temporary files are left.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

FAULTS = ("none", "worker killed", "killed", "interrupted", "corrupt", "full disk", "solver")


def measure(model, rows, labels, seed):
    """Work for a moment; kill this worker at a row drawn in advance, the first time."""
    time.sleep(model["seconds"])
    flag = model["flag"]
    if flag and model["row"] in rows[:, 0] and not os.path.exists(flag):
        open(flag, "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    noise = np.random.default_rng(seed).random(len(rows))
    return {"value": np.sin(rows[:, 0]) + noise}


def sweep(folder, n_rows, fault, row, n_jobs):
    """Evaluate all rows, and keep the values in a file; what a child process does."""
    from skrobust._evaluation import evaluate_in_chunks
    from skrobust.exceptions import LostWorkerWarning

    warnings.simplefilter("ignore", LostWorkerWarning)
    flag = str(folder / f"flag-{row}") if fault == "worker killed" else ""
    model = {"seconds": 0.002, "flag": flag, "row": float(row)}
    if fault == "full disk":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails with an error
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
        warnings.simplefilter("ignore")  # joblib tells of each entry that it cannot write
    values = evaluate_in_chunks(
        measure,
        model,
        np.arange(float(n_rows))[:, None],
        fingerprint=lambda: "sweep",
        chunk_size=10,
        random_state=0,
        n_jobs=n_jobs,
        memory=None if fault == "none" else str(folder / "memory"),
    )["value"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    np.save(folder / f"{fault}.npy", values)


def solver_faults(draw):
    """Ask a solver process that crashes, hangs or answers; return how many words were wrong."""
    from skrobust.verification._base import Stopwatch
    from skrobust.verification._marabou_process import Child

    wrong = 0
    with Child() as child:
        child.start()
        child._receive(Stopwatch())
        if draw.random() < 0.5:
            os.kill(child.process.pid, signal.SIGKILL)
            wrong += child.ask({}, [], 0.0, Stopwatch())[0] != "crash"
        else:
            os.kill(child.process.pid, signal.SIGSTOP)
            wrong += child.ask({}, [], 0.0, Stopwatch(0.2))[0] != "TIMEOUT"
    return wrong


def corrupt(memory, draw):
    """Cut short or overwrite one entry in three; return how many."""
    entries = sorted(memory.rglob("output.pkl"))
    chosen = [entry for entry in entries if draw.random() < 0.34]
    for entry in chosen:
        data = entry.read_bytes()
        entry.write_bytes(data[: len(data) // 2] if draw.random() < 0.5 else b"no pickle")
    return len(chosen)


def run_child(folder, n_rows, fault, row, environment, *, stop_after=None, sign=None):
    """Run `sweep` in a process of its own; send it a signal after some seconds."""
    flags = ["--child", fault, "--row", str(row), "--folder", str(folder), "--rows", str(n_rows)]
    process = subprocess.Popen(
        [sys.executable, __file__, *flags],
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if stop_after is not None:
        first = time.monotonic()
        # From when it has begun to keep results, so that there is something to lose.
        while process.poll() is None and time.monotonic() - first < 120:
            if list((folder / "memory").rglob("output.pkl")):
                break
            time.sleep(0.05)
        time.sleep(stop_after)
        if process.poll() is None:
            os.kill(process.pid, sign)
    return process.wait(), process.pid


def left_of(session):
    """Return processes of a session that still run, after a moment to end."""
    for _ in range(100):
        alive = []
        for place in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = place.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                alive.append(int(place.parent.name))
        if not alive:
            return 0
        time.sleep(0.1)
    return len(alive)


def main(n_rows, rounds, seed):
    from skrobust.verification import _marabou_process  # noqa: F401  # before files are counted

    draw = np.random.default_rng(seed)
    counts = dict.fromkeys(("evaluations", "lost", "changed", "processes", "files", "wrong"), 0)
    print("| fault | evaluations | lost | changed | processes left | files left |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        temporary = Path(place) / "tmp"
        temporary.mkdir()
        environment = {
            **os.environ,
            "TMPDIR": str(temporary),
            "JOBLIB_TEMP_FOLDER": str(temporary),
            "OMP_NUM_THREADS": "1",
        }
        base = Path(place) / "base"
        base.mkdir()
        run_child(base, n_rows, "none", 0, environment)
        expected = np.load(base / "none.npy")
        for number in range(rounds):
            fault = FAULTS[1:][number % (len(FAULTS) - 1)]
            folder = Path(place) / f"round-{number}"
            folder.mkdir()
            if fault == "solver":
                old = tempfile.tempdir
                tempfile.tempdir = str(temporary)
                counts["wrong"] += solver_faults(draw)
                tempfile.tempdir = old
            signs = {"killed": signal.SIGKILL, "interrupted": signal.SIGINT}
            stop = float(draw.random()) if fault in signs else None
            row = int(draw.integers(n_rows))
            _, first = run_child(
                folder, n_rows, fault, row, environment, stop_after=stop, sign=signs.get(fault)
            )
            corrupt(folder / "memory", draw)
            status, second = run_child(folder, n_rows, "again", row, environment)
            values = np.load(folder / "again.npy") if status == 0 else np.full(n_rows, np.nan)
            n_lost, n_changed = np.isnan(values).sum(), (values != expected).sum()
            n_processes = left_of(first) + left_of(second)
            left = [path for path in temporary.rglob("*") if path.is_file()]
            n_files = len(left) + len(list(temporary.glob("skrobust-*")))
            print(
                f"| {fault} | {2 * n_rows} | {n_lost} | {n_changed} | {n_processes} | {n_files} |"
            )
            sizes = (2 * n_rows, n_lost, n_changed, n_processes, n_files)
            for name, size in zip(counts, sizes, strict=False):
                counts[name] += int(size)
    print("| all | " + " | ".join(str(counts[name]) for name in list(counts)[:5]) + " |")
    print(f"\nWords of a crashed or stopped solver that were wrong: {counts['wrong']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=13, help="faults, in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help="for the script itself")
    parser.add_argument("--row", type=int)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        jobs = 2 if arguments.child == "worker killed" else None
        sweep(arguments.folder, arguments.rows, arguments.child, arguments.row, jobs)
    else:
        main(arguments.rows, arguments.rounds, arguments.seed)
