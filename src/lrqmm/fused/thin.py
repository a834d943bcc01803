"""The steps of the fused path on thin arrays, in array-API code, as `cuda` runs them.

They touch n w elements where the passes of the matrices touch n². The compiled passes of `cpu.py`
do the same; here a step is a handful of the library's own kernels.
"""

import math
from types import ModuleType

import numpy as np
from array_api_compat import array_namespace, device, to_device
from numpy.typing import NDArray

from lrqmm._checks import Array
from lrqmm.fused.kernels import Buffers
from lrqmm.products.phases import phase
from lrqmm.products.quantize import SMALLEST_SCALE
from lrqmm.products.rsvd import sketch_numbers


def take(space: Buffers | None, name: str, shape: tuple[int, ...], like: Array) -> Array:
    """An int8 array from the work space, which grows where it is too small; fresh without one."""
    xp = array_namespace(like)
    if space is None:
        return xp.empty(shape, dtype=xp.int8, device=device(like))
    size = math.prod(shape)
    if name not in space or space[name].shape[0] < size:
        space[name] = xp.empty(size, dtype=xp.int8, device=device(like))
    return xp.reshape(space[name][:size], shape)


def signs(rows: int, width: int, sketch: str, seed: tuple[int, ...]) -> NDArray[np.int8]:
    """Ωᵀ (width, rows), in NumPy: the caller puts it on its device and keeps it there."""
    return sketch_numbers(rows, width, sketch, seed).T.astype(np.int8, order="C")


def two_digits(X: Array, weight: Array | None) -> tuple[Array, Array]:
    """Thin X (n, w) in two digits (2w, n): weight_i X_il = scale_l (first_li + second_li / 254).

    scale = max|weight_i X_il| / 127 a column, 0 where that is below 2^-126, with digits 0.
    """
    xp = array_namespace(X)
    v, scale = _scaled(xp, X if weight is None else weight[:, None] * X)
    first = xp.round(v)
    second = xp.round(254 * (v - first))
    return xp.astype(xp.concat([first.T, second.T]), xp.int8), scale


def one_digit(X: Array, codes: Array) -> Array:
    """Thin X (n, w) rounded into int8 `codes` (w, n); returns the scales (w,)."""
    xp = array_namespace(X)
    v, scale = _scaled(xp, X)
    codes[...] = xp.astype(xp.round(v).T, xp.int8)
    return scale


def _scaled(xp: ModuleType, X: Array) -> tuple[Array, Array]:
    """X_il / scale_l, within ±127 but for rounding, and scale (w,)."""
    scale = xp.max(xp.abs(X), axis=0) / 127
    usable = scale >= SMALLEST_SCALE
    zero = xp.zeros_like(scale)
    inverse = xp.where(usable, 1 / xp.where(usable, scale, zero + 1), zero)
    return X * inverse, xp.where(usable, scale, zero)


def merge(sums: Array, f: Array | None, g: Array) -> Array:
    """f_i g_l (sums_il + sums_i(l+w) / 254) for the sums (n, 2w) of two digits; (n, w) float32."""
    xp = array_namespace(sums)
    w = sums.shape[1] // 2
    merged = xp.astype(sums[:, :w], xp.float32) + xp.astype(sums[:, w:], xp.float32) / 254
    return g * merged if f is None else f[:, None] * g * merged


def orthonormal(Y: Array) -> Array:
    """Orthonormal basis of the columns of Y (n, w): Cholesky QR in float64, else Householder's.

    The Gram matrix (w, w) goes to the host, where it is factored and the pivots are looked at: one
    synchronisation, where a factorisation on a GPU and its check would be as many or more. The
    threshold is that of `cpu.orthonormal`.
    """
    with phase("factorize"):
        xp = array_namespace(Y)
        Y = xp.astype(Y, xp.float64)
        inverse = _inverse_factor(np.asarray(to_device(Y.T @ Y, "cpu")))
        if inverse is None:
            basis = xp.linalg.qr(Y, mode="reduced")[0]
        else:
            basis = Y @ xp.asarray(inverse, device=device(Y)).T
        return xp.astype(basis, xp.float32)


def _inverse_factor(gram: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """L⁻¹ for gram = L Lᵀ; None where the condition number of L is beyond about 1e5."""
    try:
        lower = np.linalg.cholesky(gram)
    except np.linalg.LinAlgError:
        return None
    pivots = lower.diagonal()
    return None if pivots.min() < 1e-5 * pivots.max() else np.linalg.inv(lower)
