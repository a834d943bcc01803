"""Progress of a run in words: shards done, and about how long the rest will take."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from lrqmm.runfolder import read_json, write_json
from lrqmm.study import Shard

START_UP = 5e9  # multiply-adds that starting a process and loading libraries is worth
PER_PRODUCT = 3e8  # and the passes and thin products of one setting on one input


def begin(path: Path, folder: Path, shards: Iterable[Shard]) -> None:
    """Record, before measuring, which shards are still to do and what each is worth."""
    todo = {
        output(folder, shard).relative_to(folder).as_posix(): _worth(shard)
        for shard in shards
        if not output(folder, shard).exists()
    }
    write_json({"started": time.time(), "todo": todo}, path)


def _worth(shard: Shard) -> float:
    return shard.work + PER_PRODUCT * len(shard.inputs) * len(shard.settings) + START_UP


def output(folder: Path, shard: Shard) -> Path:
    """The file that a shard's rows are written to."""
    kind = "networks" if shard.network else "measurements" if shard.method else "arrays"
    return folder / kind / f"{shard.name}.parquet"


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
