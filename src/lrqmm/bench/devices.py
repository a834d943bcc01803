"""A GPU for one process alone.

Snakemake counts GPUs but hands out no numbers, so jobs that run side by side would share the first.
A job takes a lock on one GPU, waits where all are taken, and sees that one only. The lock goes with
the process, however it ends.
"""

import fcntl
import itertools
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/gpus")
VISIBLE = "CUDA_VISIBLE_DEVICES"
PAUSE = 0.2  # seconds between looks, while all are taken


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if VISIBLE in os.environ:  # CUDA reads it up to the first name that is none
        names = os.environ[VISIBLE].replace(" ", "").split(",")
        return list(itertools.takewhile(re.compile(r"\d+|(GPU|MIG)-.+").fullmatch, names))
    return [str(number) for number, _ in enumerate(DRIVER.iterdir())] if DRIVER.is_dir() else []


@contextmanager
def one_gpu(names: Sequence[str], folder: str | Path | None = None) -> Iterator[str | None]:
    """Take one of `names` alone and make it the only one that CUDA shows; None where there is none.

    To be entered before CUDA is used in the process.
    """
    if not names:
        yield None
        return
    if "SLURM_JOB_ID" in os.environ:  # Slurm gave it to this job alone
        yield names[0]
        return
    before = os.environ.get(VISIBLE)
    folder = Path(folder or Path(tempfile.gettempdir(), f"lrqmm-{os.getuid()}"))
    folder.mkdir(mode=0o700, exist_ok=True)
    name, lock = _take(names, folder)
    try:
        os.environ[VISIBLE] = name
        yield name
    finally:
        if before is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = before
        os.close(lock)


def _take(names: Sequence[str], folder: Path) -> tuple[str, int]:
    told = False
    while True:
        for name in names:
            path = folder / f"lrqmm-gpu-{''.join(c if c.isalnum() else '-' for c in name)}.lock"
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return name, lock
            except BlockingIOError:
                os.close(lock)
        if not told:
            print(f"waiting for one of {len(names)} GPUs", file=sys.stderr, flush=True)
            told = True
        time.sleep(PAUSE)
