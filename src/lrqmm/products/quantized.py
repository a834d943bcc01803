"""An operand as a low-precision GEMM is given it: codes with scales; the exact product of two."""

from dataclasses import dataclass
from types import ModuleType

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._repr import Shown
from lrqmm.products.backends import backend_of, integer_matmul

__all__ = ["Quantized", "product"]

LARGE_SCALE = 2.0**64  # times an int32 sum it is far from overflow, and so is any below it


@dataclass(frozen=True)
class Quantized(Shown):
    """Integer codes with their scales: what a low-precision GEMM is given.

    Attributes
    ----------
    codes : (rows, k) int8, int16 where they need more bits, or float32 of a narrow float format
    scale : (rows, groups) or (1, groups) float32, 0 for a constant vector; its sign may be either
    offset : like `scale`, or None where it is zero
    group : columns in a group; k where there are no groups

    Examples
    --------
    >>> import numpy as np
    >>> from lrqmm.products.quantize import Quantized
    >>> codes, scale = np.array([[-7, 0, 7]], np.int8), np.array([[0.5]], np.float32)
    >>> Quantized(codes, scale, offset=None, group=3).dequantize().tolist()
    [[-3.5, 0.0, 3.5]]
    """

    codes: Array
    scale: Array
    offset: Array | None
    group: int

    def dequantize(self) -> Array:
        """X̃, (rows, k) float32."""
        xp = array_namespace(self.codes)
        k = self.codes.shape[1]
        codes = xp.astype(self.codes, xp.float32)
        approx = codes * _per_column(xp, self.scale, self.group, k)
        if self.offset is None:
            return approx
        return approx + _per_column(xp, self.offset, self.group, k)


def product(left: Quantized, right: Quantized) -> Array:
    """Ã B̃ from the codes of A (m x k) and of Bᵀ (n x k); (m, n) float32.

    The integer sums are exact; scales and offsets are applied to them in float32. In a group of g
    columns

        Σ (s q + o)(t p + w) = s t Σ q p + o (t Σ p) + (s Σ q + o g) w

    of which all but the first term is, over the groups, one product of thin matrices; it is summed
    in float64, so that its rounding does not depend on the shape (`lrqmm.tiled`).

    Parameters
    ----------
    left : codes (m, k), scales and offsets of A
    right : codes (n, k), scales and offsets of Bᵀ, in groups of the same length

    Raises
    ------
    TypeError, ValueError : codes that `lrqmm.integer_matmul` does not take

    Examples
    --------
    >>> import numpy as np
    >>> from lrqmm.products.quantize import Uniform
    >>> from lrqmm.products.quantized import product
    >>> A, B = np.random.default_rng(0).random((2, 64, 64), dtype=np.float32)
    >>> left, right = Uniform(bits=8).quantize(A), Uniform(bits=8).quantize(B.T)
    >>> C = product(left, right)
    >>> bool(np.allclose(C, left.dequantize() @ right.dequantize().T, rtol=1e-4))
    True
    """
    xp = array_namespace(left.codes)
    if left.codes.dtype == xp.float32:
        A, B = left.dequantize(), right.dequantize().T
        return backend_of(A).float_matmul(A, B, "float32", None)
    k, group = left.codes.shape[1], left.group
    right_first = 0 not in left.scale.shape and bool(xp.max(xp.abs(left.scale)) > LARGE_SCALE)
    total = None
    for index, start in enumerate(range(0, k, group)):
        columns = slice(start, min(start + group, k))
        q, p = left.codes[:, columns], right.codes[:, columns]
        part = xp.astype(integer_matmul(q, p.T), xp.float32)
        scales = [left.scale[:, index, None], right.scale[None, :, index]]
        for scale in reversed(scales) if right_first else scales:
            part *= scale
        if total is None:
            total = part
        else:
            total += part
    thin = []  # (m, groups) and (n, groups)
    if left.offset is not None:
        thin.append((left.offset, right.scale * _group_sums(right)))
    if right.offset is not None:
        sums = left.scale * _group_sums(left)
        if left.offset is not None:
            sums = sums + left.offset * _group_sums(left, ones=True)
        thin.append((sums, right.offset))
    for x, y in thin:  # those of a whole tensor, (1, groups), are repeated for each row
        x = xp.broadcast_to(x, (left.codes.shape[0], x.shape[1]))
        y = xp.broadcast_to(y, (right.codes.shape[0], y.shape[1]))
        total += xp.astype(xp.astype(x, xp.float64) @ xp.astype(y, xp.float64).T, xp.float32)
    return total


def _group_sums(x: Quantized, *, ones: bool = False) -> Array:
    """Sums of the codes, or of ones, by row and group; (rows, groups) float32."""
    xp = array_namespace(x.codes)
    codes = xp.ones_like(x.codes[:1, :]) if ones else x.codes
    k = codes.shape[1]
    sums = [
        xp.sum(codes[:, start : min(start + x.group, k)], axis=1, keepdims=True, dtype=xp.int64)
        for start in range(0, k, x.group)
    ]
    return xp.astype(xp.concat(sums, axis=1), xp.float32)


def _per_column(xp: ModuleType, x: Array, group: int, k: int) -> Array:
    """(rows, groups) spread over the k columns."""
    return x if x.shape[1] == 1 else xp.repeat(x, group, axis=1)[:, :k]
