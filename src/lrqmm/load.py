"""Whether other processes used the machine while something was measured."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STAT = Path("/proc/stat")


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def watch_load(threads: int | None = None) -> Iterator[dict[str, bool]]:
    """Yield a dict whose 'loaded' says, at the end, whether others disturbed what was measured.

    That is, whether they used over a tenth of this job's cores: `threads` of them, or all; the
    rest belong to other jobs. Outside of Linux this needs psutil; without it 'loaded' is False.
    """
    cores = available_cores()
    job_cores = min(threads or cores, cores)
    verdict = {"loaded": False}
    wall, busy, cpu = time.monotonic(), _busy(), time.process_time()
    try:
        yield verdict
    finally:
        wall = max(time.monotonic() - wall, 1e-9)
        others = (_busy() - busy) - (time.process_time() - cpu)
        verdict["loaded"] = others / wall > cores - job_cores + 0.1 * job_cores


def _busy() -> float:
    """Seconds that all cores have worked, for every process; 0 where nothing says so."""
    if STAT.exists():
        user, nice, system = STAT.read_text().split(maxsplit=4)[1:4]
        return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")
    try:
        import psutil
    except ImportError:
        return 0.0
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))
