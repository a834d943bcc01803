"""Decompositions of matrices of any magnitude, in their own precision.

The libraries' own square what they are given, or scale it by numbers that are no powers of two.
Some raise an error of their own for NaN; with `check_finite=False` the answer for that is
undefined, but there is one.
"""

from array_api_compat import array_namespace, device

from lrqmm._checks import Array
from lrqmm.products.scaling import near_one


def svd(X: Array) -> tuple[Array, Array, Array]:
    """The thin SVD: U (m x r), s (r,) and Vᵀ (r x n) with X = U diag(s) Vᵀ, r = min(m, n).

    The largest entry of each column of U is positive: libraries, and one library at several thread
    counts, choose the signs differently.
    """
    X, power = _sound(X)
    U, s, Vt = array_namespace(X).linalg.svd(X, full_matrices=False)
    signs = _signs(U)
    return U * signs, s * power[0, :], signs[:, None] * Vt


def singular_values(X: Array) -> Array:
    """The singular values, (min(m, n),), the largest first."""
    X, power = _sound(X)
    return array_namespace(X).linalg.svdvals(X) * power[0, :]


def eigh(S: Array) -> tuple[Array, Array]:
    """Eigenvalues (k,), the smallest first, and eigenvectors (k x k) of a symmetric matrix, with
    signs as `svd`'s."""
    S, power = _sound(S)
    values, vectors = array_namespace(S).linalg.eigh(S)
    return values * power[0, :], vectors * _signs(vectors)


def basis(Y: Array) -> Array:
    """An orthonormal basis of the columns of Y (m x r): the Q of its QR decomposition."""
    return array_namespace(Y).linalg.qr(near_one(Y)[0], mode="reduced")[0]


def pinv(L: Array) -> Array:
    """The pseudoinverse (r x k) of L (k x r), which may be rank deficient in float32."""
    L, power = _sound(L)
    return array_namespace(L).linalg.pinv(L, rtol=max(L.shape) * 2.0**-23) / power


def inverse_root(H: Array) -> Array:
    """U upper triangular with UᵀU = H⁻¹, of a positive definite H; of the identity where H is not
    finite."""
    xp = array_namespace(H)
    if not bool(xp.all(xp.isfinite(H))):
        H = xp.eye(H.shape[0], dtype=H.dtype, device=device(H))
    return xp.linalg.cholesky(xp.linalg.inv(H), upper=True)


def _signs(U: Array) -> Array:
    """+1 or -1 for each column of U: that of its entry of largest magnitude."""
    xp = array_namespace(U)
    if 0 in U.shape:
        return xp.ones_like(xp.sum(U, axis=0))
    turned = xp.max(U, axis=0) < -xp.min(U, axis=0)
    return xp.where(turned, -xp.ones_like(U[0, :]), xp.ones_like(U[0, :]))


def _sound(X: Array) -> tuple[Array, Array]:
    """X / p with zeros for what is not finite, and p (1 x 1), a power of two."""
    xp = array_namespace(X)
    return near_one(xp.where(xp.isfinite(X), X, xp.zeros_like(X)))
