"""Whether other processes used the machine while something was measured."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STAT = Path("/proc/stat")
QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Of a container under Linux's control groups, version 2: microseconds of processor time in each
period, or 'max', and the period."""


def available_cores() -> int:
    """Cores that this process may use: those that it may run on, within its container's quota."""
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, min(_cores(), round(int(quota) / int(period))))
    except (OSError, ValueError):
        return _cores()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def watch_load(threads: int | None = None) -> Iterator[dict[str, bool]]:
    """Yield a dict whose 'loaded' says, at the end, whether others disturbed what was measured.

    That is, whether they used over a tenth of this job's cores: `threads` of them, or all; the
    rest belong to other jobs. Outside of Linux this needs psutil; without it 'loaded' is False.
    """
    cores = _cores()  # others outside of a container's quota do not disturb what is in it
    job_cores = min(threads or available_cores(), cores)
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
