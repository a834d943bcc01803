"""Products of matrices that lie on disk, tile by tile, in a bounded amount of memory.

    C_ij = Ã_i B̃_j + Ã_i L_B,j + L_A,i B̃_j + L_A,i L_B,j   (row strips i of A, column strips j of B)

Rows of A and columns of B are vectors of length k, and both operands are treated alike, as their
vectors X (count x k): X = A or Bᵀ. Their residual R = X - X̃ has the low-rank part L = U Vᵀ:

    lrqmm        V = P, U = R P       P: leading left singular vectors of Rᵀ Ω
    mean_fix     V = P, U = R P       P: the vector of 1 / sqrt(k)
    lrqmm_aware  U = Q, V = RᵀQ       Q: leading left singular vectors of R Z Ω, Z = B or Ãᵀ

Ω is random with r + oversampling columns, and the sketch is cut to r columns as it is, which saves
a pass. R P takes only the strip of R that is at hand, so lrqmm reads each operand once before the
sweep. Two sketches of one pass (Tropp, Yurtsever, Udell, Cevher 2017, arXiv 1609.00048) would give
L without the second look at R, but with noise as large as R where R has a flat spectrum, which the
residual of rounding has. For a sketch 'ones+...' the first column of lrqmm's P is 1 / sqrt(k): it
catches the mean of every vector of R, and rank 1 is mean_fix.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lrqmm import _checks, methods
from lrqmm.lowrank import DEFAULT_RANK, LEFT, RIGHT, LowRank
from lrqmm.methods.lrqmm_aware import LRQMMAware
from lrqmm.methods.mean_fix import MeanFix
from lrqmm.quantize import Quantized, Quantizer, group_length, product

METHODS = ("direct", "lrqmm", "lrqmm_aware", "mean_fix", "sgemm")
DTYPES = ("float16", "float32", "float64")

# Bytes at the peak, from above: of an element being quantised, and of an element of a tile.
WORK_BYTES = 44
TILE_BYTES = 24

Floats = NDArray[np.float32]
Part = Callable[[Floats], Floats]
Rows = Callable[[slice], Floats]
Thin = Callable[[slice, Floats, Floats], Floats]
Strip = tuple[Quantized, Floats]


def matmul(
    A: Any,
    B: Any,
    method: str = "lrqmm",
    *,
    out: str | os.PathLike[str] | None = None,
    memory_limit: int = 1 << 30,
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
    method : 'direct', 'lrqmm', 'lrqmm_aware', 'mean_fix' or 'sgemm'
    out : path of the .npy file to write, whole or not at all; None for an array in memory
    memory_limit : bytes of all buffers together, the result's too where `out` is None. Operands
        in memory and what Dask holds of its chunks come on top.
    params : of the method; power_iterations is 0 here, execution 'plain', factor_dtype 'float32'

    Returns
    -------
    (m, n) array, or read-only memory map of `out`, in the operands' promoted dtype.

    Raises
    ------
    TypeError : other operands or dtypes; a parameter that the method does not have
    ValueError : unreadable files, wrong shapes, NaN, infinity or values beyond 2^120, a parameter's
        value that is not allowed, a `memory_limit` that is too small
    OSError : no room for `out`
    """
    _checks.choice("method", method, METHODS)
    _checks.integer("memory_limit", memory_limit, 1)
    composition = _build(method, params)
    left, right = _open("A", A), _open("B", B)
    (m, k), n = left.matrix.shape, right.matrix.shape[1]
    if right.matrix.shape[0] != k:
        raise ValueError(
            f"A has shape {m} x {k} and B {right.matrix.shape[0]} x {n}; "
            "allowed: as many columns in A as rows in B"
        )
    composition.check_shape(m, k, n)
    dtype = np.result_type(left.matrix.dtype, right.matrix.dtype)
    kept = 0 if out is not None else m * n * dtype.itemsize
    if kept > memory_limit:
        raise ValueError(
            f"memory_limit is {memory_limit} bytes, and the result alone takes {kept}; "
            "allowed: more, or out= with the path of a .npy file to write it to"
        )
    shape = (m, k, n)
    sizes = _sizes(method, composition, shape, memory_limit, kept) if 0 not in shape else None
    left, right = replace(left, sizes=sizes), replace(right, sizes=sizes)
    with _result(out, (m, n), dtype) as C:
        if sizes is None:
            C[...] = 0
        elif method == "sgemm":
            _sweep(C, sizes, left.floats, right.floats, lambda a, b: a @ b.T)
        else:
            _compensated(C, composition, left, right)
    return C if out is None else np.load(out, mmap_mode="r")


def _build(method: str, params: dict[str, Any]) -> Any:
    """The method's parts, with what is not offered here refused."""
    preset = methods.preset(method)
    only_these = {"power_iterations": 0, "execution": "plain", "factor_dtype": "float32"}
    for name, only in only_these.items():
        if name in preset.defaults and params.get(name, only) != only:
            raise ValueError(f"{name} is {params[name]!r}; allowed for matrices on disk: {only!r}")
    if "power_iterations" in preset.defaults:
        params = {**params, "power_iterations": 0}
    return preset.build(**params)


# operands


@dataclass(frozen=True)
class Sizes:
    """Vectors at once: read as floats, quantised, and in the strips of a tile; bytes mapped."""

    read: int
    work: int
    left: int
    right: int
    mapped: int


@dataclass(frozen=True)
class Vectors:
    """The rows of A or the columns of B, (count, k), read and quantised a few at a time."""

    label: str
    matrix: Any
    transposed: bool
    sizes: Sizes | None = None
    quantizer: Quantizer | None = None
    extremes: Floats | None = None

    @property
    def X(self) -> Any:
        """(count, k), nothing of it read."""
        return self.matrix.T if self.transposed else self.matrix

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[slice, Floats]]:
        """Checked vectors start to stop in order, a few at a time; the next ones overwrite them."""
        assert self.sizes is not None
        count, k = self.X.shape
        stop = count if stop is None else stop
        buffer = np.empty((min(self.sizes.read, stop - start), k), np.float32)
        for first in range(start, stop, self.sizes.read):
            floats = buffer[: min(self.sizes.read, stop - first)]
            self._read(first, floats)
            for i in range(0, len(floats), self.sizes.work):
                x = floats[i : i + self.sizes.work]
                self._check(x, first + i)
                yield slice(first + i, first + i + len(x)), x

    def floats(self, start: int, stop: int) -> Floats:
        """Vectors start to stop."""
        x = np.empty((stop - start, self.X.shape[1]), np.float32)
        for i, block in self.blocks(start, stop):
            x[i.start - start : i.stop - start] = block
        return x

    def quantize(self, x: Floats) -> Quantized:
        """A few of the vectors, quantised as all of them together would be."""
        assert self.quantizer is not None
        if self.extremes is None:
            return self.quantizer.quantize(x)
        # the whole tensor's extremes as two more vectors: the scale is then the whole tensor's
        rows = np.repeat(self.extremes[:, None], x.shape[1], axis=1)
        q = self.quantizer.quantize(np.concatenate([x, rows]))
        scale = np.repeat(q.scale, len(x), axis=0)
        offset = None if q.offset is None else np.repeat(q.offset, len(x), axis=0)
        return replace(q, codes=q.codes[:-2], scale=scale, offset=offset)

    def exact(self, x: Floats) -> Floats:
        return x

    def approx(self, x: Floats) -> Floats:
        approx: Floats = self.quantize(x).dequantize()
        return approx

    def residual(self, x: Floats) -> Floats:
        return x - self.approx(x)

    def with_quantizer(self, quantizer: Quantizer) -> Vectors:
        """Ready to quantise; granularity 'tensor' takes a pass."""
        if quantizer.granularity != "tensor":
            return replace(self, quantizer=quantizer)
        low, high = np.float32(np.inf), np.float32(-np.inf)
        for _, x in self.blocks():
            low, high = np.minimum(low, x.min()), np.maximum(high, x.max())
        return replace(self, quantizer=quantizer, extremes=np.array([low, high]))

    def _read(self, start: int, floats: Floats) -> None:
        """Fill `floats`, a piece of the file at a time, so that few of its pages are mapped."""
        assert self.sizes is not None
        source = self.X[start : start + len(floats)]
        if isinstance(source, np.ndarray):
            along = abs(source.strides[0]) >= abs(source.strides[1])  # vectors lie in one piece
            length = self.X.shape[1 if along else 0] * source.itemsize
            step = max(1, self.sizes.mapped // length)
        else:
            along, step = True, len(floats)  # Dask: every chunk once
        for first in range(0, floats.shape[0 if along else 1], step):
            piece = slice(first, first + step)
            part = (piece, slice(None)) if along else (slice(None), piece)
            with np.errstate(over="ignore"):  # float64 beyond float32 is found by the check
                floats[part] = np.asarray(source[part])
            _release(source)

    def _check(self, x: Floats, start: int) -> None:
        usable = np.abs(x) <= _checks.LARGEST  # False for NaN
        if not usable.all():
            vector, element = (int(i[0]) for i in np.nonzero(~usable))
            where = (element, start + vector) if self.transposed else (start + vector, element)
            raise ValueError(
                f"{self.label} holds {float(self.matrix[where])} at {where}; allowed: finite "
                f"values up to {_checks.LARGEST:.2g} in magnitude (sums beyond it overflow float32)"
            )


def _open(name: str, source: Any) -> Vectors:
    """An operand with its shape and dtype checked, and nothing else read."""
    label, matrix = name, source
    if isinstance(source, str | os.PathLike):
        try:
            matrix = np.load(source, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"{name} is {str(source)!r}, which cannot be read: {error}; allowed: a .npy file"
            ) from None
    if isinstance(matrix, np.memmap) and matrix.filename is not None:
        label = f"{name} ({matrix.filename})"
    if not isinstance(matrix, np.ndarray) and not type(matrix).__module__.startswith("dask.array"):
        raise TypeError(
            f"{name} is a {type(matrix).__name__}; allowed: a NumPy array or memory map, the path "
            "of a .npy file, a Dask array"
        )
    if matrix.ndim != 2 or any(math.isnan(size) for size in matrix.shape):  # NaN: unknown to Dask
        shape = " x ".join(map(str, matrix.shape)) or "()"
        raise ValueError(f"{label} has shape {shape}; allowed: two dimensions of known size")
    if matrix.dtype.name not in DTYPES:
        raise TypeError(f"{label} has dtype {matrix.dtype}; allowed: {', '.join(DTYPES)}")
    return Vectors(label, matrix, transposed=name == "B")


def _release(x: Any) -> None:
    """Unmap the pages of a mapped file that were touched; what was written to them stays."""
    mapped = getattr(x, "_mmap", None)
    if mapped is not None and x.mode != "c" and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


# memory


def _sizes(
    method: str, composition: Any, shape: tuple[int, int, int], limit: int, kept: int
) -> Sizes:
    """How much to take at once, so that all buffers stay within `limit` bytes.

    A sixteenth is for mapped pages. Of the rest, an eighth is for vectors being quantised, a
    quarter for vectors read, and what is left for the two strips of codes and their tile.
    """
    m, k, n = shape
    width, vector = 1, 4 * k  # columns of the thin matrices; bytes of a vector in a strip
    if method != "sgemm":
        quantizer = composition.quantizer
        group = group_length(quantizer.granularity, k)
        vector = 2 * k + 16 * math.ceil(k / group)  # codes, and a copy that the product may take
        if quantizer.zero_point is not None:
            vector += 8 * group  # torch sums codes as int64
        if isinstance(composition.compensator, LowRank):
            c = composition.compensator
            width = 2 * min(max(_ranks(c, m, k, n)) + c.oversampling, k)
    tall = m + n if method == "lrqmm_aware" else 0
    kept += 12 * width * (k + tall)  # sketches, and the copies that an SVD of them takes
    vector += 16 * width
    work = WORK_BYTES * k + 32 * width
    least = kept + 4 * k + work + 2 * vector + TILE_BYTES
    free = limit - limit // 16 - kept
    if free < least - kept:
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


def _ranks(c: LowRank, m: int, k: int, n: int) -> tuple[int, int]:
    """Ranks at which A's and B's residuals are compensated."""
    rank = DEFAULT_RANK if c.rank is None else c.rank
    left = min(rank, m, k) if "a" in c.sides else 0
    return left, min(rank, k, n) if "b" in c.sides else 0


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
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        C = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # a full disk: said now, not by a signal later
            with open(part, "rb+") as stream:
                os.posix_fallocate(stream.fileno(), 0, part.stat().st_size)
        yield C
        C.flush()
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


# low-rank parts


@dataclass(frozen=True)
class LowRankPart:
    """L = U Vᵀ of the residual of some vectors: V (k x r); U (count x r), None for U = R V."""

    V: Floats
    U: Floats | None = None

    def of(self, index: slice, residual: Floats) -> Floats:
        """The rows of U of some vectors, of which `residual` is R."""
        return residual @ self.V if self.U is None else self.U[index]


def _times(X: Vectors, part: Part, G: Floats) -> Floats:
    """part(X) G, (count, w): one pass."""
    Y = np.empty((X.X.shape[0], G.shape[1]), np.float32)
    for i, x in X.blocks():
        Y[i] = part(x) @ G
    return Y


def _transposed_times(X: Vectors, part: Part, rows: Rows, width: int) -> Floats:
    """part(X)ᵀ H, (k, w): one pass; `rows` gives the rows of H, which are asked for in order."""
    S = np.zeros((X.X.shape[1], width), np.float32)
    for i, x in X.blocks():
        S += part(x).T @ rows(i)
    return S


def _drawn(width: int, sketch: str, seed: tuple[int, int]) -> Rows:
    """Rows of a test matrix, as in `rsvd.sketch_matrix`, drawn in order and never held at once."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))

    def rows(index: slice) -> Floats:
        shape = (index.stop - index.start, width)
        if sketch.endswith("gaussian"):
            omega = generator.standard_normal(shape, dtype=np.float32)
        else:
            omega = generator.integers(0, 2, shape).astype(np.float32) * 2 - 1
        if sketch.startswith("ones"):
            omega[:, :1] = 1
        return omega

    return rows


def _leading(Y: Floats, rank: int) -> Floats:
    """The leading left singular vectors of a sketch."""
    U = torch.linalg.svd(torch.from_numpy(Y), full_matrices=False)[0]
    leading: Floats = U[:, :rank].contiguous().numpy()  # a copy: the rest of U can go
    return leading


def _lrqmm_part(X: Vectors, rank: int, c: LowRank, side: int) -> LowRankPart:
    """R ≈ (R P) Pᵀ: one pass over X, and none where the mean is all of P."""
    count, k = X.X.shape
    ones = c.sketch.startswith("ones") and rank < count  # else P spans all of R without the mean
    mean = np.full((k, int(ones)), k**-0.5, np.float32)
    if rank == mean.shape[1]:
        return LowRankPart(mean)
    width = min(rank + c.oversampling, count, k)
    omega = _drawn(width, c.sketch.removeprefix("ones+"), (c.seed, side))
    S = _transposed_times(X, X.residual, omega, width)
    S -= mean @ (mean.T @ S)
    return LowRankPart(np.concatenate([mean, _leading(S, rank - mean.shape[1])], axis=1))


def _aware_part(
    X: Vectors, rank: int, Z: Vectors, part: Part, c: LowRank, side: int
) -> LowRankPart:
    """R ≈ Q QᵀR with Q from R (part(Z)ᵀ Ω): two passes over X, one over Z."""
    (count, k), others = X.X.shape, Z.X.shape[0]
    width = min(rank + c.oversampling, count, k, others)
    G = _transposed_times(Z, part, _drawn(width, c.sketch, (c.seed, side)), width)
    Q = _leading(_times(X, X.residual, G), rank)
    return LowRankPart(_transposed_times(X, X.residual, Q.__getitem__, Q.shape[1]), Q)


def _low_rank_parts(composition: Any, A: Vectors, B: Vectors) -> tuple[LowRankPart, LowRankPart]:
    """L_A and L_Bᵀ; of rank 0 where there is none."""
    (m, k), n = A.X.shape, B.X.shape[0]
    c = composition.compensator
    if isinstance(c, MeanFix):
        mean = LowRankPart(np.full((k, 1), k**-0.5, np.float32))
        return mean, mean
    none = LowRankPart(np.empty((k, 0), np.float32))
    if not isinstance(c, LowRank):
        return none, none
    left, right = _ranks(c, m, k, n)
    if isinstance(c, LRQMMAware):
        L_A = _aware_part(A, left, B, B.exact, c, LEFT) if left else none
        L_B = _aware_part(B, right, A, A.approx, c, RIGHT) if right else none
    else:
        L_A = _lrqmm_part(A, left, c, LEFT) if left else none
        L_B = _lrqmm_part(B, right, c, RIGHT) if right else none
    return L_A, L_B


# the sweep


def _sweep(C: NDArray[Any], sizes: Sizes, of_rows: Any, of_columns: Any, tile: Any) -> None:
    """Fill C tile by tile: `tile` of a row strip of A and a column strip of B."""
    m, n = C.shape
    for j in range(0, n, sizes.right):
        columns = slice(j, min(j + sizes.right, n))
        right = of_columns(columns.start, columns.stop)
        for i in range(0, m, sizes.left):
            rows = slice(i, min(i + sizes.left, m))
            C[rows, columns] = tile(of_rows(rows.start, rows.stop), right)
            _release(C)
        del right  # before the next one is made


def _compensated(C: NDArray[Any], composition: Any, A: Vectors, B: Vectors) -> None:
    """C ≈ (Ã + L_A)(B̃ + L_B), or what `terms` leaves of it.

    The correction of a tile is a product of thin matrices, of A's rows and B's columns:
    Ã L_B + L_A B̃ + L_A L_B = [Ã V_B + U_A V_AᵀV_B | U_A] [U_B | B̃ᵀV_A]ᵀ
    """
    A, B = A.with_quantizer(composition.quantizer), B.with_quantizer(composition.quantizer)
    L_A, L_B = _low_rank_parts(composition, A, B)
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
    _sweep(C, A.sizes, of_rows, of_columns, tile)


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
