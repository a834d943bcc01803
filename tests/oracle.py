"""Arrays of every library, and slow, obvious float64 references, shared by the tests."""

import importlib
import math
import os

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import lrqmm
from lrqmm.methods import preset

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, and matrices are small
    threadpool_limits(1)
    torch.set_num_threads(1)

LIBRARIES = ("numpy", "torch", "array_api_strict")
PEERS = tuple(name for name in lrqmm.list_methods() if preset(name).packages)
"""Methods that are products of other libraries; tests/test_peers.py asks of them what they keep."""
OPTIONAL = tuple(name for name in PEERS if preset(name).modules and preset(name).extra == "peers")
"""Those of libraries that the suite does without."""


def to(library, X):
    """A NumPy array as one of another library; strides survive."""
    if library == "numpy":
        return X
    if library == "torch":
        return torch.from_numpy(X)
    return importlib.import_module(library).asarray(X)


def to_numpy(X):
    return X if isinstance(X, np.ndarray) else np.asarray(X)


def distance(C, exact):
    """‖C - exact‖ / ‖exact‖, Frobenius, in float64."""
    C, exact = to_numpy(C).astype(np.float64), to_numpy(exact).astype(np.float64)
    assert C.shape == exact.shape
    assert np.isfinite(C).all()
    norm = np.linalg.norm(exact)
    return float(np.linalg.norm(C - exact) / norm) if norm else float(np.linalg.norm(C))


def product(A, B):
    return A.astype(np.float64) @ B.astype(np.float64)


def shared_scale(shape, granularity):
    """Index tuples of the elements that share a scale, in the order in which scales are stored."""
    rows, k = shape
    if granularity == "tensor":
        return [(slice(None), slice(None))]
    group = int(granularity.split(":")[1]) if ":" in granularity else k
    return [
        (slice(i, i + 1), slice(start, start + group))
        for i in range(rows)
        for start in range(0, k, group)
    ]


def low_rank(R, rank):
    """Best approximation of rank `rank`, by the exact SVD."""
    U, s, Vt = np.linalg.svd(R)
    return (U[:, :rank] * s[:rank]) @ Vt[:rank]


def truncate(x):
    return float(math.trunc(x))


def nearest(x):
    return float(round(x))  # Python rounds ties to even
