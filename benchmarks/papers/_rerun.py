"""What the reruns of papers share: cells that outlive a killed run, tables, and the command line.

A rerun is a set of cells: trained networks, and numbers that are measured on them. Each is kept in
a file of its own as soon as it is there, and looked up by all that it follows from: the function
that computes it, its settings, and the versions of what computes. So a second call goes on where
the first was killed or ran out of time, and a changed setting computes what depends on it anew.
Changes within the library at the same version are not seen: ``--anew`` forgets what is kept.
"""

import argparse
import os
import pickle
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import joblib
import torch

from skrobust._keys import digest, versions

__all__ = ["Cell", "Report", "Rerun", "Table", "beside", "command_line", "percent"]

ROOT = Path(__file__).parents[2]
NOT_RUN = "not run"


@dataclass(frozen=True, eq=False)
class Cell:
    """One part of a rerun: ``function(**settings)``.

    Parameters
    ----------
    name : str
        Start of the file's name.
    function : callable
        Of a module's top level, so that processes can be sent it.
    settings : dict
        Arguments. A value that is a Cell is computed first, and its result handed over.
    """

    name: str
    function: object
    settings: dict = field(default_factory=dict)

    @cached_property
    def key(self):
        """What tells this cell from others, in any process."""
        settings = {
            name: value.key if isinstance(value, Cell) else value
            for name, value in self.settings.items()
        }
        return digest((self.function, settings, versions()))


class Rerun:
    """Compute cells, keep them, and give them back.

    Parameters
    ----------
    folder : Path
        Of the kept results.
    minutes : float or None, default=None
        No cell is begun after this time; what is left waits for the next call.
    n_jobs : int, default=1
        Processes, with one thread each.
    anew : bool, default=False
        Whether `run` forgets first what is kept of its cells.
    """

    def __init__(self, folder, *, minutes=None, n_jobs=1, anew=False):
        self.folder, self.n_jobs, self.anew = Path(folder), n_jobs, anew
        self._forgotten = set()
        self.start = time.time()
        self.deadline = float("inf") if minutes is None else self.start + 60 * minutes
        self.commit = _commit()
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self, cells):
        """Compute the cells that are not kept yet, `n_jobs` at a time.

        Parameters
        ----------
        cells : iterable of Cell
            Several of one key are computed once.
        """
        cells = {cell.key: cell for cell in cells}.values()
        if self.anew:
            for cell in cells:
                # What this run has computed, in an earlier call, is not forgotten.
                if cell.key not in self._forgotten:
                    self.path(cell).unlink(missing_ok=True)
            self._forgotten.update(cell.key for cell in cells)
        open_cells = [cell for cell in cells if not self.path(cell).is_file()]
        if len(open_cells) < len(cells):
            print(f"{len(cells) - len(open_cells)} of {len(cells)} cells kept from before.")
        parallel = joblib.Parallel(self.n_jobs, return_as="generator_unordered", batch_size=1)
        tasks = (joblib.delayed(_compute)(self, cell) for cell in open_cells)
        for done, (name, seconds) in enumerate(parallel(tasks), start=1):
            elapsed = (time.time() - self.start) / 60
            took = NOT_RUN if seconds is None else f"{seconds:.1f} s"
            print(f"{elapsed:6.1f} min  {done}/{len(open_cells)}  {name}: {took}", flush=True)

    def value(self, cell):
        """Return the result of a cell, or None where it has not been computed."""
        return self._read(cell, "value")

    def record(self, cell):
        """Return what is kept beside the result: name, seconds, commit; or None."""
        return self._read(cell, "record")

    def _read(self, cell, part):
        path = self.path(cell)
        if not path.is_file():
            return None
        with path.open("rb") as file:
            record = pickle.load(file)
            return record if part == "record" else pickle.load(file)

    def path(self, cell):
        return self.folder / f"{cell.name}-{cell.key[:16]}.pkl"

    def keep(self, cell, value, seconds):
        """Write a result to its file, whole or not at all."""
        record = {"name": cell.name, "seconds": seconds, "commit": self.commit}
        handle, scratch = tempfile.mkstemp(dir=self.folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                pickle.dump(record, file)
                pickle.dump(
                    value, file
                )  # apart, so that a network need not be read for the record
            os.replace(scratch, self.path(cell))
        finally:
            Path(scratch).unlink(missing_ok=True)

    def account(self, cells):
        """Return a sentence on how long the cells took, and which code computed them."""
        records = [self.record(cell) for cell in {cell.key: cell for cell in cells}.values()]
        known = [record for record in records if record is not None]
        minutes = sum(record["seconds"] for record in known) / 60
        commits = Counter(record["commit"] for record in known)
        of = ", ".join(f"{commit} ({count})" for commit, count in commits.most_common())
        text = f"{len(known)} of {len(records)} cells, {minutes:.1f} minutes of one core together"
        return f"{text}; computed at commit {of}." if known else f"{text}."


def _compute(rerun, cell):
    """Compute and keep a cell; return its name and seconds, None where time is up."""
    if time.time() > rerun.deadline:
        return cell.name, None
    torch.set_num_threads(1)
    settings = {
        name: _needed(rerun, value) if isinstance(value, Cell) else value
        for name, value in cell.settings.items()
    }
    start = time.perf_counter()
    value = cell.function(**settings)
    seconds = time.perf_counter() - start
    rerun.keep(cell, value, seconds)
    return cell.name, seconds


def _needed(rerun, cell):
    """Return the value of a cell that another one builds on."""
    if not rerun.path(cell).is_file():
        _compute(rerun, cell)
    value = rerun.value(cell)
    if value is None:
        raise RuntimeError(f"{cell.name} came to nothing, and another cell builds on it.")
    return value


def _commit():
    """Name the commit of the code, with a plus sign where tracked files differ from it."""

    def git(*arguments):
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("diff", "HEAD", "--stat") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class Table:
    """Rows of text below a title, as Markdown.

    Parameters
    ----------
    title : str
    columns : sequence of str
        Headings; the first one is that of the names of the rows.
    notes : sequence of str, default=()
        Paragraphs below the table: every difference from the paper.
    """

    def __init__(self, title, columns, notes=()):
        self.title, self.columns, self.notes = title, list(columns), list(notes)
        self.rows = []

    def row(self, name, *cells):
        """Add a row; None stands for what was not run."""
        if len(cells) != len(self.columns) - 1:
            raise ValueError(f"Got {len(cells)} cells, but expected {len(self.columns) - 1}.")
        self.rows.append([name, *(NOT_RUN if cell is None else str(cell) for cell in cells)])

    def markdown(self):
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join([f"### {self.title}", table, *self.notes])


class Report:
    """Tables, pictures and remarks of a rerun, in one Markdown file beside the pictures.

    Parameters
    ----------
    folder : Path
    title : str
    """

    def __init__(self, folder, title):
        self.folder, self.parts = Path(folder), [f"## {title}"]
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, part):
        """Add a paragraph, or a Table."""
        self.parts.append(part.markdown() if isinstance(part, Table) else part)

    def picture(self, figure, name, caption):
        """Save a matplotlib figure as ``name.png``, and show it in the text."""
        figure.savefig(self.folder / f"{name}.png", dpi=100, bbox_inches="tight")
        self.add(f"![{caption}]({name}.png)\n\n{caption}")

    def write(self):
        """Write ``report.md``, print it, and return its path."""
        text = "\n\n".join(self.parts) + "\n"
        path = self.folder / "report.md"
        path.write_text(text, encoding="utf-8")
        print(f"\n{text}\nWritten to {path}.", flush=True)
        return path


def percent(share, digits=1):
    """Return a share as a number of percent; None stays None."""
    return None if share is None else f"{100 * share:.{digits}f}"


def beside(ours, paper):
    """Return our figure with the paper's behind it in brackets, where there is one."""
    if ours is None:
        return None
    return str(ours) if paper is None else f"{ours} ({paper})"


def command_line(description, name, *, minutes, add=None):
    """Return the options of a rerun: its budget, and where and how it runs.

    Parameters
    ----------
    description : str
    name : str
        Of the folder below output/papers.
    minutes : float
        Default of ``--minutes`` for the small budget; the others have no limit.
    add : callable or None, default=None
        ``add(parser)`` adds the options of one script.

    Returns
    -------
    argparse.Namespace
        With `budget` "smoke", "small" or "full".
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    budget = parser.add_mutually_exclusive_group()
    for other, help in (
        ("full", "the paper's own settings"),
        ("smoke", "a few digits, seconds: only to see that all of it runs"),
    ):
        budget.add_argument(
            f"--{other}", dest="budget", action="store_const", const=other, help=help
        )
    parser.set_defaults(budget="small")
    parser.add_argument("--n-jobs", type=int, default=1, help="processes, of one thread each")
    limit = f"begin nothing after these ({minutes:g} by default, no limit with --full and --smoke)"
    parser.add_argument("--minutes", type=float, help=f"{limit}; a second call goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "papers" / name)
    parser.add_argument("--anew", action="store_true", help="forget what is kept")
    if add is not None:
        add(parser)
    options = parser.parse_args()
    if options.minutes is None and options.budget == "small":
        options.minutes = minutes
    if options.n_jobs < 1:
        parser.error(f"Got --n-jobs {options.n_jobs}, but expected at least 1.")
    return options
