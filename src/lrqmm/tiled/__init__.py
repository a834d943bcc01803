"""Products of matrices that lie on disk, tile by tile, in a bounded amount of memory.

    C_ij = Ã_i B̃_j + Ã_i L_B,j + L_A,i B̃_j + L_A,i L_B,j   (row strips i of A, column strips j of B)

Rows of A and columns of B are vectors of length k, and both operands are treated alike, as their
vectors X (count x k): X = A or Bᵀ (`vectors.py`). `lowrank.py` finds the low-rank parts L.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lrqmm import _checks, methods
from lrqmm._files import write_whole
from lrqmm._progress import Report, silent
from lrqmm.products.backends import backend_of
from lrqmm.products.composition import Composition, Preset, has_executions
from lrqmm.products.floatproduct import FloatProduct
from lrqmm.products.lowrank import LowRank
from lrqmm.products.method import Method, Recipe
from lrqmm.products.quantize import group_length
from lrqmm.products.quantized import Quantized, product
from lrqmm.tiled.lowrank import low_rank_parts
from lrqmm.tiled.vectors import Floats, Sizes, Vectors, open_vectors, release

# Bytes at the peak, from above: of an element being quantised, and of an element of a tile.
WORK_BYTES = 44
TILE_BYTES = 24

Thin = Callable[[slice, Floats, Floats], Floats]
Strip = tuple[Quantized, Floats]


def matmul(
    A: Any,
    B: Any,
    method: str = "lrqmm",
    *,
    out: str | os.PathLike[str] | None = None,
    memory_limit: int = 1 << 30,
    progress: Report = silent,
    **params: Any,
) -> NDArray[Any]:
    """A (m x k) times B (k x n), neither of which need fit into memory.

    The sweep over the tiles reads B once, and A once for every column strip of B; a larger
    `memory_limit` makes wider strips. Before it, lrqmm reads each operand once and lrqmm_aware
    three times; granularity 'tensor' takes one time more. Row-major A and column-major B are read
    in order, others in pieces of as many columns (rows) as memory allows.

    Parameters
    ----------
    A, B : np.memmap, path of a .npy file, NumPy array or Dask array, of float16, 32 or 64
    method : 'direct', 'lrqmm', 'lrqmm_aware', 'mean_fix', 'sgemm', or parts of these joined by `+`
    out : path of the .npy file to write, whole or not at all; None for an array in memory
    memory_limit : bytes of all buffers together, the result's too where `out` is None. Operands
        in memory and what Dask holds of its chunks come on top.
    progress : called with what is being done and the share of the tiles that is done
    params : of the method; power_iterations is 0 here, execution 'plain', factor_dtype 'float32'

    Returns
    -------
    (m, n) array, or read-only memory map of `out`, in the operands' promoted dtype.

    Raises
    ------
    TypeError : other operands or dtypes; a parameter that the method does not have
    ValueError : unreadable files, wrong shapes, NaN, infinity or values beyond 2^120, a matrix of
        values below 2^-119 alone, a parameter's value that is not allowed, a `memory_limit` that is
        too small
    OSError : no room for `out`
    """
    _checks.integer("memory_limit", memory_limit, 1)
    built = _build(method, params)
    left, right = open_vectors("A", A), open_vectors("B", B)
    (m, k), n = left.matrix.shape, right.matrix.shape[1]
    if right.matrix.shape[0] != k:
        raise ValueError(
            f"A has shape {m} x {k} and B {right.matrix.shape[0]} x {n}; "
            "allowed: as many columns in A as rows in B"
        )
    built.check_shape(m, k, n)
    dtype = np.result_type(left.matrix.dtype, right.matrix.dtype)
    held = 0 if out is not None else m * n * dtype.itemsize
    if held > memory_limit:
        raise ValueError(
            f"memory_limit is {memory_limit} bytes, and the result alone takes {held}; "
            "allowed: more, or out= with the path of a .npy file to write it to"
        )
    sizes = _sizes(built, (m, k, n), memory_limit, held) if 0 not in (m, k, n) else None
    left, right = replace(left, sizes=sizes), replace(right, sizes=sizes)
    with backend_of(np.empty(0)).usual_state(None, "ieee"), _result(out, (m, n), dtype) as C:
        if sizes is None:
            C[...] = 0
        elif isinstance(built, Composition):
            _compensated(C, built, left, right, progress)
        else:
            _sweep(C, sizes, left.floats, right.floats, lambda a, b: a @ b.T, progress)
        left.refuse_underflow()
        right.refuse_underflow()
    return C if out is None else np.load(out, mmap_mode="r")


def _build(name: str, params: dict[str, Any]) -> Method:
    """The method, with what is not offered here refused."""
    recipe = methods.preset(name)
    if not covers(recipe):
        allowed = [name for name in methods.list_methods() if covers(methods.preset(name))]
        _checks.choice("method", name, allowed)
    only_these = {"power_iterations": 0, "execution": "plain", "factor_dtype": "float32"}
    for key, only in only_these.items():
        if key in recipe.defaults and params.get(key, only) != only:
            raise ValueError(f"{key} is {params[key]!r}; allowed for matrices on disk: {only!r}")
    if "power_iterations" in recipe.defaults:
        params = {**params, "power_iterations": 0}
    return recipe.build(**params)


def covers(recipe: Recipe) -> bool:
    """Whether a method can be run in tiles: float32, or uniform levels and a correction by means or
    thin factors."""
    if isinstance(recipe, Preset):
        return has_executions(recipe.transform, recipe.quantizer, recipe.compensator)
    return type(recipe) is FloatProduct and recipe.precision == "float32"


def _sizes(built: Method, shape: tuple[int, int, int], limit: int, held: int) -> Sizes:
    """How much to take at once, so that all buffers stay within `limit` bytes.

    A sixteenth is for mapped pages. Of the rest, an eighth is for vectors being quantised, a
    quarter for vectors read, and what is left for the two strips of codes and their tile.
    """
    m, k, n = shape
    width, vector = 1, 4 * k  # columns of the thin matrices; bytes of a vector in a strip
    tall = 0
    if isinstance(built, Composition):
        quantizer: Any = built.quantizer
        group = group_length(quantizer.granularity, k)
        vector = 2 * k + 16 * math.ceil(k / group)  # codes, and a copy that the product may take
        if quantizer.zero_point is not None or quantizer.left.zero_point is not None:
            vector += 8 * group  # torch sums codes as int64
        c = built.compensator
        if isinstance(c, LowRank):
            if c.rank == "auto":
                raise ValueError("rank is 'auto'; allowed: an integer or None within memory_limit")
            width = 2 * min(max(c.ranks(m, k, n)) + c.oversampling, k)
        tall = m + n if c.span == "product" else 0
    held += 12 * width * (k + tall)  # sketches, and the copies that an SVD of them takes
    vector += 16 * width
    work = WORK_BYTES * k + 32 * width
    least = held + 4 * k + work + 2 * vector + TILE_BYTES
    free = limit - limit // 16 - held
    if free < least - held:
        raise ValueError(
            f"memory_limit is {limit} bytes; allowed: at least {(16 * least + 14) // 15} "
            f"for this {m} x {k} by {k} x {n} product"
        )
    at_work = max(1, free // 8 // work)
    read = max(at_work, free // 4 // (4 * k))
    free -= at_work * work + read * 4 * k
    left = max(1, min(m, 256, free // 4 // vector))
    right = max(1, min(n, (free - left * vector) // (vector + TILE_BYTES * left)))
    return Sizes(read, at_work, left, right, limit // 16)


@contextmanager
def _result(
    out: str | os.PathLike[str] | None, shape: tuple[int, int], dtype: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    """An array in memory, or one on disk that becomes `out` when all went well."""
    if out is None:
        yield np.empty(shape, dtype)
        return
    path = Path(out)
    if path.suffix != ".npy" or not path.parent.is_dir() or path.is_dir():
        raise ValueError(f"out is {str(out)!r}; allowed: path of a .npy file in an existing folder")
    with write_whole(path) as part:
        C = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # a full disk: said now, not by a signal later
            with open(part, "rb+") as stream:
                os.posix_fallocate(stream.fileno(), 0, part.stat().st_size)
        yield C
        C.flush()


def _sweep(
    C: NDArray[Any], sizes: Sizes, of_rows: Any, of_columns: Any, tile: Any, progress: Report
) -> None:
    """Fill C tile by tile: `tile` of a row strip of A and a column strip of B."""
    m, n = C.shape
    for j in range(0, n, sizes.right):
        columns = slice(j, min(j + sizes.right, n))
        right = of_columns(columns.start, columns.stop)
        for i in range(0, m, sizes.left):
            rows = slice(i, min(i + sizes.left, m))
            progress("tiles", (m * j + i * (columns.stop - j)) / (m * n))
            C[rows, columns] = tile(of_rows(rows.start, rows.stop), right)
            release(C)
        del right  # before the next one is made


def _compensated(
    C: NDArray[Any], composition: Composition, A: Vectors, B: Vectors, progress: Report
) -> None:
    """C ≈ (Ã + L_A)(B̃ + L_B), or what `terms` leaves of it.

    The correction of a tile is a product of thin matrices, of A's rows and B's columns:
    Ã L_B + L_A B̃ + L_A L_B = [Ã V_B + U_A V_AᵀV_B | U_A] [U_B | B̃ᵀV_A]ᵀ
    """
    quantizer = composition.quantizer
    progress("scales and low-rank parts", 0.0)
    A, B = A.with_quantizer(quantizer.left), B.with_quantizer(quantizer)
    L_A, L_B = low_rank_parts(composition, A, B)
    terms = getattr(composition.compensator, "terms", "full")
    both = L_A.V.T @ L_B.V if terms == "full" else None

    def thin_rows(i: slice, x: Floats, approx: Floats) -> Floats:
        U_A = L_A.of(i, x - approx)
        first = approx @ L_B.V
        return np.concatenate([first if both is None else first + U_A @ both, U_A], axis=1)

    def thin_columns(j: slice, x: Floats, approx: Floats) -> Floats:
        second = (x if terms == "exact" else approx) @ L_A.V
        return np.concatenate([L_B.of(j, x - approx), second], axis=1)

    def tile(left: Strip, right: Strip) -> Floats:
        C: Floats = product(left[0], right[0]).numpy()
        if thin:
            C += left[1] @ right[1].T
        return C

    thin = L_A.V.shape[1] + L_B.V.shape[1] > 0
    of_rows = partial(_strip, A, thin_rows if thin else None)
    of_columns = partial(_strip, B, thin_columns if thin else None)
    assert A.sizes is not None
    _sweep(C, A.sizes, of_rows, of_columns, tile, progress)


def _strip(X: Vectors, thin: Thin | None, start: int, stop: int) -> Strip:
    """Codes of vectors start to stop, as torch arrays, and their thin matrix."""
    codes = np.empty((stop - start, X.X.shape[1]), np.int8)
    scales, offsets, rows = [], [], [np.empty((0, 0), np.float32)] if thin is None else []
    for i, x in X.blocks(start, stop):
        q = X.quantize(x)
        codes[i.start - start : i.stop - start] = q.codes
        scales.append(q.scale)
        if q.offset is not None:
            offsets.append(q.offset)
        if thin is not None:
            rows.append(thin(i, x, q.dequantize()))
    offset = torch.from_numpy(np.concatenate(offsets)) if offsets else None
    scale = torch.from_numpy(np.concatenate(scales))
    return Quantized(torch.from_numpy(codes), scale, offset, q.group), np.concatenate(rows)
