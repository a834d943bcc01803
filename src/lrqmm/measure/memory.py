"""The memory that a measuring process may use."""

from __future__ import annotations

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
        limit, used = group / "memory.max", group / "memory.current"
        if limit.is_file() and (most := limit.read_text().strip()) != "max":
            free.append(int(most) - int(used.read_text()))
    if allocated := os.environ.get("SLURM_MEM_PER_NODE"):
        free.append(int(allocated) * 2**20)
    return max(0, min(free))
