"""Files that commands read and write."""

from pathlib import Path
from typing import Any

from lrqmm import _checks
from lrqmm._extras import needs_extra
from lrqmm._progress import Report


def check_new_file(path: Path, suffix: str) -> None:
    """Raise ValueError unless a file of this name may be written."""
    if path.suffix != suffix or not path.parent.is_dir():
        raise ValueError(f"out is {str(path)!r}; allowed: a {suffix} file in an existing folder")


def read_matrices(
    a: str, b: str, transpose_b: bool, library: str, device: str, progress: Report
) -> tuple[Any, Any, tuple[Any, Any]]:
    """A and B in a library, float32, and as they are stored."""
    import numpy as np

    from lrqmm.bench.data.matrices import read_values
    from lrqmm.products.backends import LIBRARIES, from_numpy

    _checks.choice("library", library, list(LIBRARIES))
    _checks.choice("device", device, ("auto", "cpu", "cuda"))
    if library == "cupy":
        needs_extra("--library cupy", "cuda13")
    progress(f"reading {a} and {b}", 0.0)
    A, B = read_values(a), read_values(b)
    values = (A, B.T if transpose_b else B)
    left, right = (from_numpy(X.astype(np.float32, copy=False), library, device) for X in values)
    return left, right, values
