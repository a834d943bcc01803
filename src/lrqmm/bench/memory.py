"""The memory that a measuring process may use."""

import os
import resource
import sys
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def limit_memory() -> int | None:
    """Let allocations beyond the memory that is there fail, on Linux; returns the limit in bytes.

    The setting that asked is then a failed row and its neighbours are measured. Without a limit the
    kernel would end the process, and the rows that it holds would be lost.
    """
    if sys.platform != "linux":
        return None
    used: int = psutil.Process().memory_info().data
    limit = int(0.95 * free_memory()) + used
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return limit


def free_memory() -> int:
    """Bytes that are free: on the machine, in the job's control group, of its Slurm allocation."""
    free: list[int] = [psutil.virtual_memory().available]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        group = CGROUP / line.rpartition(":")[2].lstrip("/")
        free.extend(room for each in (group, *group.parents) if (room := _free_in(each)))
    if megabytes := allocated():
        free.append(megabytes * 2**20)
    return min(free)


def allocated() -> int:
    """Megabytes that Slurm gave to this job; 0 outside Slurm or where it does not say."""
    return max(0, int(os.environ.get("SLURM_MEM_PER_NODE", "0")))


def _free_in(group: Path) -> int | None:
    """Bytes that a control group has left, cached files not counted; None where it has no limit."""
    limit = group / "memory.max"
    if not limit.is_file() or (most := limit.read_text().strip()) == "max":
        return None
    counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    used = int((group / "memory.current").read_text()) - int(counts.get("inactive_file", 0))
    return max(0, int(most) - used)
