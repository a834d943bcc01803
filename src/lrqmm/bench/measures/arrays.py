"""The small matrices that figures show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrqmm.method import get_method
from lrqmm.products.quantize import Uniform
from lrqmm.products.rsvd import rsvd

Rows = Iterator[dict[str, Any]]


def spectra(A: NDArray[np.float32], settings: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Singular values of A and of its quantisation residual, as columns."""
    residual = A - Uniform(**settings).quantize(A).dequantize()
    return {
        "matrix": np.linalg.svd(A, compute_uv=False)[:, None],
        "residual": np.linalg.svd(residual, compute_uv=False)[:, None],
    }


def steps(
    A: NDArray[np.float32], B: NDArray[np.float32], settings: Mapping[str, Any], size: int = 32
) -> dict[str, NDArray[Any]]:
    """LRQMM step by step on a size x size piece, from the middle rows, of a layer's output A B."""
    settings = dict(settings)
    rank = settings.pop("rank")
    first = max(0, len(A) // 2 - size // 2)
    X = (A[first : first + size] @ B[:, :size]).astype(np.float32)
    quantized = Uniform(**settings).quantize(X)
    approx = quantized.dequantize()
    residual = X - approx
    U, s, Vt = rsvd(residual, rank)
    low_rank = (U * s) @ Vt
    return {
        "matrix": X,
        "codes": quantized.codes,
        "dequantized": approx,
        "residual": residual,
        "low-rank part": low_rank,
        "what is left": residual - low_rank,
    }


def pictures(
    A: NDArray[np.float32], B: NDArray[np.float32], settings: Mapping[str, Any], size: int = 160
) -> dict[str, NDArray[Any]]:
    """A product by one method, every few entries of it so that at most `size` a side are left."""
    settings = dict(settings)
    name = settings.pop("method")
    C = get_method(name, **settings).matmul(A, B)
    step = -(-max(C.shape) // size)
    return {name: C[::step, ::step]}


def as_rows(arrays: Mapping[str, NDArray[Any]], **about: Any) -> Rows:
    """One row an entry, in the columns of the table of arrays."""
    about["parameters"] = json.dumps(about["parameters"], sort_keys=True)
    for name, X in arrays.items():
        for (i, j), value in np.ndenumerate(X):
            yield {**about, "name": name, "row": i, "column": j, "value": float(value)}
