"""The door for operands: arrays of any make become checked, plain float32 matrices.

An operand whose largest magnitude lies far from 1 is multiplied by a power of two, which is exact,
so that squares and scales of it stay within float32; the product is multiplied back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import array_api_compat as compat
import numpy as np

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm.products.backends import backend_of, is_array, library_of

DTYPES = ("float16", "bfloat16", "float32", "float64")
USUAL = 40
"""Largest magnitudes from 2^-USUAL to 2^USUAL stay as they are."""


@dataclass(frozen=True)
class CheckedOperand:
    """A checked operand.

    Attributes
    ----------
    array : (..., rows, columns), plain: of the library's own class, native, without gradient
    largest : magnitude of its largest element; None where nobody looked
    exponent : its matrices are 2^-exponent times the array's
    """

    array: Array
    largest: float | None
    exponent: int

    @classmethod
    def of(cls, name: str, X: Any, check_finite: bool) -> CheckedOperand:
        """`X` as an operand.

        Raises
        ------
        TypeError : not an array, one without plain memory, not floating
        ValueError : fewer than two dimensions; with `check_finite` NaN, infinity, a value beyond
            2^120, a largest magnitude below 2^-119
        """
        if not is_array(X):
            raise TypeError(
                f"{name} is a {type(X).__name__}; allowed: a NumPy, torch or CuPy array of floats"
            )
        X = backend_of(X).plain(name, X)
        if str(X.dtype).rsplit(".", 1)[-1] not in DTYPES:
            raise TypeError(f"{name} has dtype {X.dtype}; allowed: {', '.join(DTYPES)}")
        if X.ndim < 2:
            raise ValueError(f"{name} has shape {shape_of(X)}; allowed: at least two dimensions")
        if not check_finite:
            return cls(X, None, 0)
        largest = _largest(name, X)
        return cls(X, largest, _exponent(largest))

    def matrices(self) -> list[Array]:
        """The matrices of the batch, in order, float32, times 2^-exponent."""
        xp = compat.array_namespace(self.array)
        X = xp.astype(self.array, xp.float32, copy=False)
        if self.exponent:
            X = X * 2.0**-self.exponent
        if X.ndim == 2:
            return [X]
        flat = xp.reshape(X, (math.prod(X.shape[:-2]), *X.shape[-2:]))
        return [flat[i, :, :] for i in range(flat.shape[0])]


def _largest(name: str, X: Array) -> float:
    """The largest magnitude, checked."""
    if math.prod(X.shape) == 0:
        return 0.0
    xp = compat.array_namespace(X)
    wide = xp.float64 if X.dtype == xp.float64 else xp.float32  # float16 has no 2^120
    sizes = xp.abs(xp.astype(X, wide, copy=False))
    largest = float(xp.max(sizes))  # NaN where there is one
    if not largest <= _checks.LARGEST:
        wrong = tuple(int(i[0]) for i in xp.nonzero(~(sizes <= _checks.LARGEST)))
        raise ValueError(
            f"{name} holds {float(X[wrong])} at {wrong}; allowed: finite values up to "
            f"{_checks.LARGEST:.2g} in magnitude (sums beyond it overflow float32)"
        )
    if 0 < largest < _checks.SMALLEST:
        raise ValueError(
            f"{name} holds nothing above {largest:.2g} in magnitude; allowed: zeros only, or at "
            f"least {_checks.SMALLEST:.2g} somewhere (scales of smaller ones underflow float32); "
            "multiply it by a power of two"
        )
    return largest


def _exponent(largest: float) -> int:
    """Power of two that takes a largest magnitude to the nearer end of what is usual."""
    if largest == 0 or 2.0**-USUAL <= largest <= 2.0**USUAL:
        return 0
    exponent = math.frexp(largest)[1]  # largest < 2^exponent
    return exponent - USUAL if exponent > 0 else exponent - 1 + USUAL


def check_pair(A: CheckedOperand, B: CheckedOperand, name: str = "A") -> None:
    """Raise TypeError or ValueError unless A and B can be multiplied with each other."""
    left, right = A.array, B.array
    if library_of(left) != library_of(right):
        raise TypeError(
            f"{name} is of {library_of(left)} and B of {library_of(right)}; allowed: both of the "
            "same library"
        )
    if compat.device(left) != compat.device(right):
        raise ValueError(
            f"{name} is on {compat.device(left)} and B on {compat.device(right)}; allowed: the "
            "same device"
        )
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(
            f"{name} has shape {shape_of(left)} and B {shape_of(right)}; allowed: as many columns "
            f"in {name} as rows in B"
        )
    broadcast(left.shape[:-2], right.shape[:-2])


def checked_pair(A: Any, B: Any) -> tuple[Array, Array]:
    """Two matrices that can be multiplied, checked, in float32, each times a power of two."""
    left, right = CheckedOperand.of("A", A, True), CheckedOperand.of("B", B, True)
    check_pair(left, right)
    if left.array.ndim != 2 or right.array.ndim != 2:
        raise ValueError(
            f"A and B have {left.array.ndim} and {right.array.ndim} dimensions; allowed: 2"
        )
    return left.matrices()[0], right.matrices()[0]


def check_range(A: CheckedOperand, B: CheckedOperand, dtype: Any) -> None:
    """Raise ValueError where `dtype` cannot hold any element of A B to all its digits."""
    if not A.largest or not B.largest:
        return
    xp = compat.array_namespace(A.array)
    most = A.array.shape[-1] * A.largest * B.largest
    least = float(xp.finfo(dtype).smallest_normal)
    if most < least:
        raise ValueError(
            f"A times B is at most {most:.2g} in magnitude; allowed: at least {least:.2g}, the "
            f"smallest normal {str(dtype).rsplit('.', 1)[-1]}; multiply an operand by a power of "
            "two"
        )


def check_out(
    out: Array, A: CheckedOperand, B: CheckedOperand, shape: tuple[int, ...], dtype: Any
) -> None:
    """Raise TypeError or ValueError unless the product can be written to `out`."""
    library, xp = library_of(A.array), compat.array_namespace(A.array)
    if not is_array(out) or library_of(out) != library:
        raise TypeError(f"out is a {type(out).__name__}; allowed: an array of {library}")
    if tuple(out.shape) != shape or len(shape) != 2:
        raise ValueError(
            f"out has shape {shape_of(out)}; allowed: {' x '.join(map(str, shape))}, the "
            "product's, and two dimensions only"
        )
    if out.dtype != xp.float32 or dtype != xp.float32:
        raise TypeError(f"out has dtype {out.dtype} for a {dtype} product; allowed: float32 both")
    if compat.device(out) != compat.device(A.array):
        raise ValueError(f"out is on {compat.device(out)}; allowed: {compat.device(A.array)}")
    contiguous = out.is_contiguous() if library == "torch" else out.flags.c_contiguous
    if not contiguous:
        raise ValueError("out has strides of its own; allowed: a contiguous array")
    backend_of(out).plain("out", out)
    if library == "numpy" and not (out.flags.writeable and out.flags.aligned):
        raise ValueError("out is read-only or not aligned; allowed: memory to write to")
    if library == "torch" and (out.requires_grad or out.is_neg()):
        raise ValueError("out asks for a gradient or is a negated view; allowed: neither")
    for name, X in (("A", A.array), ("B", B.array)):
        if backend_of(out).overlap(out, X):
            raise ValueError(f"out shares memory with {name}; allowed: memory of its own")


def broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """Broadcast batch shapes, or raise ValueError."""
    try:
        return np.broadcast_shapes(left, right)
    except ValueError:
        raise ValueError(
            f"batch dimensions {tuple(left)} of A and {tuple(right)} of B do not broadcast"
        ) from None


def broadcast_pairs(
    left: tuple[int, ...], right: tuple[int, ...], batch: tuple[int, ...]
) -> list[tuple[int, int]]:
    """For each matrix of the broadcast batch, its indices in batches of the two shapes."""
    numbers = (np.arange(math.prod(shape)).reshape(shape) for shape in (left, right))
    i, j = (np.broadcast_to(each, batch).ravel().tolist() for each in numbers)
    return list(zip(i, j, strict=True))


def times_power(C: Array, exponent: int, dtype: Any) -> Array:
    """2^exponent C in `dtype`: scaled in float64 or float32, whichever is wider, and exactly where
    that holds it. Two steps, since no float32 holds 2^exponent where |exponent| is above 127."""
    xp = compat.array_namespace(C)
    C = xp.astype(C, dtype, copy=False) if dtype == xp.float64 else C
    if exponent:
        half = exponent // 2
        C = C * 2.0**half * 2.0 ** (exponent - half)
    return xp.astype(C, dtype, copy=False)


def shape_of(X: Array) -> str:
    """'2 x 3', in words."""
    return " x ".join(str(size) for size in X.shape) or "()"
