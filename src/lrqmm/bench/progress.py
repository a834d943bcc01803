"""A run on the screen: shards done, about how long the rest will take, and what went wrong."""

import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from lrqmm.bench.measures._experiment import Shard
from lrqmm.run.folder import read_json, write_json

START_UP = 5e9  # multiply-adds that starting a process and loading libraries is worth
PER_PRODUCT = 3e8  # and the passes and thin products of one setting on one input
PAUSE = 10.0  # seconds of a run between two lines about its shards
WIDTH = 160  # characters of a list of files on the screen


def begin(path: Path, folder: Path, shards: Iterable[Shard]) -> None:
    """Record, before measuring, which shards are still to do and what each is worth."""
    todo = {
        output(folder, shard).relative_to(folder).as_posix(): (
            shard.work + PER_PRODUCT * len(shard.inputs) * len(shard.settings) + START_UP
        )
        for shard in shards
        if not output(folder, shard).exists()
    }
    write_json({"started": time.time(), "todo": todo}, path)


def output(folder: Path, shard: Shard) -> Path:
    """The file that a shard's rows are written to."""
    return folder / shard.measure.table / f"{shard.name}.parquet"


def report(path: Path, folder: Path) -> str:
    """One line: how many shards are done, how long it took, how long the rest may take."""
    try:
        record = read_json(path)
    except ValueError:
        return "shard done"
    todo: dict[str, float] = record["todo"]
    done = [name for name in todo if (folder / name).exists()]
    ready = folder / "inputs.json"  # inputs are made first, and count for no shard
    started = max(record["started"], ready.stat().st_mtime if ready.exists() else 0)
    gone = max(0.0, time.time() - started)  # a clock may go back
    worth, total = sum(todo[name] for name in done), sum(todo.values())
    left = f", about {_words(gone * (total - worth) / worth)} left" if worth else ""
    return f"{len(done)} of {len(todo)} shards in {_words(gone)}{left}"


def announce(path: Path, folder: Path, name: str) -> None:
    """Print a shard's `report`, but one in PAUSE seconds only: of several, of the first to end."""
    with contextlib.suppress(OSError):
        if 0 <= time.time() - path.stat().st_mtime < PAUSE:
            return
        os.utime(path)
    print(f"{name}: {report(path, folder)}", file=sys.stderr)


class Brief(logging.Filter):
    """Of Snakemake's lines those that matter: no job that starts or ends, but each that fails.

    Of its count of jobs one line in each tenth is left. Its log file keeps them all.
    """

    ROUTINE = ("job_info", "job_started", "job_finished", "group_info")

    def __init__(self) -> None:
        super().__init__()
        self.tenths = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        event = getattr(record, "event", None)
        if event == "progress":
            done, total = (getattr(record, name) for name in ("done", "total"))
            before, self.tenths = self.tenths, 10 * done // total
            return self.tenths > before
        return event not in self.ROUTINE and record.msg != "Select jobs to execute..."


class Readable(logging.Formatter):
    """Snakemake's own words, but long lists of files are cut, and a lock is explained."""

    LISTS = ("input: ", "output: ", "reason: ")

    def __init__(self, usual: logging.Formatter) -> None:
        super().__init__()
        self.usual = usual

    def format(self, record: logging.LogRecord) -> str:
        """The record in words."""
        text = self.usual.format(record)
        if getattr(record, "exception", None) == "LockException":
            return f"{text}\n{about_lock()}"
        if getattr(record, "event", None) is None:
            return text
        lines = text.split("\n")
        return "\n".join(_cut(x) if x.lstrip().startswith(self.LISTS) else x for x in lines)


def _cut(line: str) -> str:
    start = line if len(line) <= WIDTH else line[:WIDTH].rpartition(", ")[0]
    rest = line[len(start) :].count(", ")
    return f"{start} and {rest} more" if start and rest else line


def about_lock() -> str:
    """Of a folder that Snakemake finds locked: who works in it, or how to go on where nobody does.

    A process of another machine is not seen.
    """
    mine = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    folder = os.path.realpath(".")
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            program, *words = process.cmdline() or [""]
            snakemake = "python" in program and any("snakemake" in word for word in words)
            other = snakemake and process.pid not in mine
            if other and os.path.realpath(process.cwd()) == folder:
                return (
                    f"Process {process.pid} of this machine works in it: wait until it has ended."
                )
    return (
        "No process of this machine works in it, so the run that did was killed. Unless another "
        "machine works in it, type\n"
        f"    {os.path.relpath(sys.prefix)}/bin/python -m snakemake --unlock\n"
        "and then the same command again: what was measured is kept."
    )


def process_seconds() -> float:
    """Seconds since this process started, by a clock that counts from the machine's start."""
    started: float = psutil.Process().create_time()
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return time.time() - started
    since_boot = started - float(psutil.boot_time())  # whose whole seconds cancel
    return time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


@contextlib.contextmanager
def logged(log: str) -> Iterator[None]:
    """Send standard error to a log file; an error goes there in full, its message to the screen."""
    screen = sys.stderr
    with open(log, "w") as stream, contextlib.redirect_stderr(stream):
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            print(f"\nerror: {error}\n", file=screen, flush=True)
            sys.exit(1)
