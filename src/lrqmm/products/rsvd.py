"""Randomised SVD, and the randomised range finder behind every low-rank compensator.

Source: Halko, Martinsson, Tropp (2011), algorithms 4.4 and 5.1, doi:10.1137/090771806. The first
column of the sketch may be all ones: our addition, it catches the mean, which is what matters
where quantisation leaves a residual of one sign.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import NDArray

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm.products.backends import backend_of
from lrqmm.products.decompose import basis, svd
from lrqmm.products.phases import phase

SKETCHES = ("ones+gaussian", "gaussian", "ones+sign", "sign")


def sketch_matrix(
    like: Array, rows: int, columns: int, sketch: str, seed: tuple[int, ...]
) -> Array:
    """Test matrix of shape (rows, columns), float32, in the library and on the device of `like`.

    'gaussian' is standard normal, 'sign' is ±1, 'ones+...' has ones in its first column. The
    numbers come from NumPy's Philox generator, so every library and device gets the same matrix.
    """
    xp = array_namespace(like)
    return xp.asarray(sketch_numbers(rows, columns, sketch, seed), device=device(like), copy=True)


@lru_cache(maxsize=16)
def sketch_numbers(
    rows: int, columns: int, sketch: str, seed: tuple[int, ...]
) -> NDArray[np.float32]:
    """The numbers of `sketch_matrix`; kept, since a fast product takes as long as drawing them."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    return drawn(generator, (rows, columns), sketch)


def drawn(
    generator: np.random.Generator, shape: tuple[int, int], sketch: str
) -> NDArray[np.float32]:
    """The next rows of a test matrix."""
    if sketch.endswith("gaussian"):
        omega = generator.standard_normal(shape, dtype=np.float32)
    else:
        omega = generator.integers(0, 2, shape).astype(np.float32) * 2 - 1
    if sketch.startswith("ones"):
        omega[:, :1] = 1
    return omega


def range_basis(
    forward: Callable[[Array], Array],
    backward: Callable[[Array], Array],
    omega: Array,
    power_iterations: int,
) -> Array:
    """Orthonormal basis of the dominant range of a linear map M: Q of orth(M (MᵀM)^q Ω).

    `forward(X)` is M X, `backward(Y)` is Mᵀ Y; both sides are re-orthonormalised in every pass. Ω
    is made small first, so that sums of its ones with large elements stay in range.
    """
    with phase("sketch"):
        Y = forward(omega * 2.0 ** -int(omega.shape[0]).bit_length())
    Q = _orth(Y)
    for _ in range(power_iterations):
        with phase("sketch"):
            Z = backward(Q)
        Z = _orth(Z)
        with phase("sketch"):
            Y = forward(Z)
        Q = _orth(Y)
    return Q


def _orth(Y: Array) -> Array:
    with phase("factorize"):
        return basis(Y)


def rsvd(
    M: Array,
    rank: int,
    *,
    oversampling: int = 8,
    power_iterations: int = 1,
    sketch: str = "ones+gaussian",
    seed: int | tuple[int, ...] = 0,
) -> tuple[Array, Array, Array]:
    """Randomised SVD of M (m x n): U (m x r), s (r,), Vᵀ (r x n) with M ≈ U diag(s) Vᵀ.

    M is float32 or float64, and so are the factors.
    r = min(rank, m, n); the sketch has r + oversampling columns, at most min(m, n).
    """
    _checks.integer("rank", rank, 0)
    _checks.integer("oversampling", oversampling, 0)
    _checks.integer("power_iterations", power_iterations, 0)
    _checks.choice("sketch", sketch, SKETCHES)
    smaller = min(M.shape)
    rank = min(rank, smaller)
    width = min(rank + oversampling, smaller)
    seed = seed if isinstance(seed, tuple) else (seed,)
    with backend_of(M).usual_state(M, "ieee"):
        omega = sketch_matrix(M, M.shape[1], width, sketch, seed)
        omega = array_namespace(M).astype(omega, M.dtype, copy=False)
        Q = range_basis(lambda X: M @ X, lambda Y: M.T @ Y, omega, power_iterations)
        with phase("sketch"):
            small = Q.T @ M
        with phase("factorize"):
            U, s, Vt = svd(small)
            return Q @ U[:, :rank], s[:rank], Vt[:rank, :]
