"""The vectors of an operand on disk, (count, k): read, checked and quantised a few at a time."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrqmm import _checks
from lrqmm.products.quantize import Quantizer
from lrqmm.products.quantized import Quantized

DTYPES = ("float16", "float32", "float64")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sizes:
    """Vectors at once: read as floats, quantised, and in the strips of a tile; bytes mapped."""

    read: int
    work: int
    left: int
    right: int
    mapped: int


@dataclass
class Seen:
    """The largest magnitude among the vectors read so far."""

    largest: float = 0.0


@dataclass(frozen=True)
class Vectors:
    """The rows of A or the columns of B, (count, k), read and quantised a few at a time."""

    label: str
    matrix: Any
    transposed: bool
    sizes: Sizes | None = None
    quantizer: Quantizer | None = None
    extremes: Floats | None = None
    seen: Seen = field(default_factory=Seen)

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
                exact = np.asarray(source[part])
                floats[part] = exact
            if exact.dtype == np.float64 and not floats[part].any() and exact.any():
                self.seen.largest = max(self.seen.largest, float(np.abs(exact).max()))
            del exact
            release(source)

    def _check(self, x: Floats, start: int) -> None:
        size = np.abs(x)
        self.seen.largest = max(self.seen.largest, float(size.max(initial=0.0)))
        usable = size <= _checks.LARGEST  # False for NaN
        if not usable.all():
            vector, element = (int(i[0]) for i in np.nonzero(~usable))
            where = (element, start + vector) if self.transposed else (start + vector, element)
            raise ValueError(
                f"{self.label} holds {float(self.matrix[where])} at {where}; allowed: finite "
                f"values up to {_checks.LARGEST:.2g} in magnitude (sums beyond it overflow float32)"
            )

    def refuse_underflow(self) -> None:
        """Raise ValueError where all that was read is too small for float32, and not zero."""
        if 0 < self.seen.largest < _checks.SMALLEST:
            raise ValueError(
                f"{self.label} underflows: its largest magnitude is {self.seen.largest:.3g}; "
                f"allowed: 0, or at least {_checks.SMALLEST:.2g} (products run in float32)"
            )


def open_vectors(name: str, source: Any) -> Vectors:
    """An operand with its shape and dtype checked, and nothing else read."""
    label, matrix = name, source
    if isinstance(source, str | os.PathLike):
        try:
            matrix = np.load(source, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"{name} is {str(source)!r}, which cannot be read: {_checks.reason(error)}; "
                "allowed: a .npy file"
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


def release(x: Any) -> None:
    """Unmap the pages of a mapped file that were touched; what was written to them stays."""
    mapped = getattr(x, "_mmap", None)
    if mapped is not None and x.mode != "c" and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)
