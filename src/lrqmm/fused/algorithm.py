"""LRQMM with every pass over the big matrices in int8: the formulas, device by device the same.

Both operands lie `rows x k`, the right one as Bᵀ, and nothing big is ever kept in float:

    X ≈ X̃ = diag(s) q,    R = X - X̃ ≈ u diag(s) d,    q codes, d residual digits, both int8;
    L = Q diag(a) v ≈ Q Qᵀ R,    Q (rows x r) orthonormal, v (r x k) int8.

An operand may have one offset per row, X̃ = diag(s) q + o 1ᵀ: o = -diag(s) z for integer zero points
z of the left one, o the means of R by row for `methods/mean_fix.py`. The products of that term with
the other operand are sums of its codes.

With [q; v] for the left operand and [p; w] for the right one, a single integer product

    [q; v] [p; w]ᵀ  =  [[q pᵀ, q wᵀ], [v pᵀ, v wᵀ]]

holds the direct product and all thin products of the correction.
Source of the method: `methods/lrqmm.py` and `methods/lrqmm_aware.py`; of this form: this project.
"""

from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace, device

from lrqmm._checks import Array
from lrqmm.fused.coded import Coded
from lrqmm.fused.kernels import Kernels
from lrqmm.products.lowrank import LEFT
from lrqmm.products.phases import phase
from lrqmm.products.rsvd import sketch_matrix


def project(X: Coded, Q: Array, kernels: Kernels) -> Array:
    """Rᵀ Q, (k, w) float32; Q goes into the product as two int8 digits."""
    with phase("sketch"):
        return _product_from_left(X.digits, X.scale, Q, X.unit, kernels)


def apply(X: Coded, Z: Array, kernels: Kernels) -> Array:
    """R Z for Z (k, w), (rows, w) float32; Z goes in as two int8 digits."""
    with phase("sketch"):
        return _product_from_right(X.digits, X.scale, Z, X.unit, kernels)


def _product_from_left(d: Array, s: Array, Q: Array, unit: float, kernels: Kernels) -> Array:
    """unit dᵀ diag(s) Q for int8 d (rows, k), thin Q (rows, w)."""
    codes, scale = kernels.two_digits(Q, s)
    return kernels.merge(kernels.thin_product(codes, d).T, None, unit * scale)


def _product_from_right(d: Array, s: Array, Z: Array, unit: float, kernels: Kernels) -> Array:
    """unit diag(s) d Z for int8 d (rows, k), thin Z (k, w)."""
    codes, scale = kernels.two_digits(Z, None)
    return kernels.merge(kernels.int_product(d, codes), s, unit * scale)


def residual_basis(
    X: Coded, width: int, rank: int, side: int, options: Any, kernels: Kernels
) -> Array:
    """Q of the paper's method: the range of R (RᵀR)^q Ω."""
    with phase("sketch"):
        signs = kernels.signs(X.room.shape[1], width, options.sketch, (options.seed, side))
        Y = X.scale[:, None] * kernels.int_product(X.digits, signs)
    Q = kernels.orthonormal(Y)
    for _ in range(options.power_iterations):
        Z = kernels.orthonormal(project(X, Q, kernels))
        Q = kernels.orthonormal(apply(X, Z, kernels))
    return _dominant(Q, rank, lambda: project(X, Q, kernels))


def product_basis(
    X: Coded, other: Coded, width: int, rank: int, side: int, options: Any, kernels: Kernels
) -> Array:
    """Q of the product-aware method: the range of M (MᵀM)^q Ω with M = R Yᵀ, Y the other operand.

    For the residual of B, Y is Ã, which is codes only; for that of A it is B itself, codes and
    residual digits (as in `methods/lrqmm_aware.py`).
    """
    parts = [(other.codes, 1.0)] + ([(other.digits, other.unit)] if side == LEFT else [])

    def forward(V: Array) -> Array:  # R (Yᵀ V)
        with phase("sketch"):
            Z = [_product_from_left(d, other.scale, V, unit, kernels) for d, unit in parts]
            if other.offset is not None:
                Z[0] = Z[0] + other.offset @ V
        return apply(X, sum(Z[1:], start=Z[0]), kernels)

    def backward(U: Array) -> Array:  # Y (Rᵀ U)
        Z = project(X, U, kernels)
        with phase("sketch"):
            V = [_product_from_right(d, other.scale, Z, unit, kernels) for d, unit in parts]
            if other.offset is not None:
                V[0] = V[0] + other.offset[:, None] * Z.sum(0)
            return sum(V[1:], start=V[0])

    omega = sketch_matrix(X.scale, other.rows, width, options.sketch, (options.seed, side))
    Q = kernels.orthonormal(forward(omega))
    for _ in range(options.power_iterations):
        Q = kernels.orthonormal(forward(kernels.orthonormal(backward(Q))))
    return _dominant(Q, rank, lambda: backward(Q))


def compensate(X: Coded, Q: Array, kernels: Kernels) -> None:
    """Put L = Q diag(a) v, the residual's part in the range of Q, into a coded operand."""
    V = project(X, Q, kernels)
    with phase("sketch"):
        X.thin_scale = kernels.one_digit(V, X.room[X.rows : X.rows + Q.shape[1], :])
        X.basis = Q


def add_sums(X: Coded, kernels: Kernels) -> None:
    """Sum the codes by row."""
    with phase("sketch"):
        X.sums = _row_sums(X.codes, kernels)


def add_means(X: Coded, kernels: Kernels) -> None:
    """Put the means of R by row, read from its digits, into the offset."""
    with phase("sketch"):
        means = X.unit * X.scale * _row_sums(X.digits, kernels) / X.digits.shape[1]
        X.offset = means if X.offset is None else X.offset + means


def _row_sums(d: Array, kernels: Kernels) -> Array:
    """d 1 for int8 d, exact below 2^24: an integer product is faster than a library's sum."""
    xp = array_namespace(d)
    ones = xp.ones((1, d.shape[1]), dtype=xp.int8, device=device(d))
    return xp.astype(kernels.int_product(d, ones)[:, 0], xp.float32)


def update(
    left: Coded, right: Coded, terms: str, qw: Array, pv: Array, vw: Array
) -> tuple[Array, Array]:
    """Thin X (m, 2r) and Y (n, 2r) with X Yᵀ = Ã L_B + L_A B̃ (+ L_A L_B where terms are 'full').

    qw = q wᵀ (m, r), pv = p vᵀ (n, r) and vw = v wᵀ (r, r) are int32. X Yᵀ also holds the products
    of offsets: o (diag(t) p 1)ᵀ, (diag(s) q 1 + k o) o_Bᵀ. Low-rank parts go with an offset on the
    left only.
    """
    xp = array_namespace(left.scale)
    with phase("correct"):
        X, Y = [], []
        if left.offset is not None:
            X.append(left.offset[:, None])
            Y.append((right.scale * right.sums)[:, None])
        if right.offset is not None:
            sums = left.scale * left.sums
            if left.offset is not None:
                sums = sums + left.codes.shape[1] * left.offset
            X.append(sums[:, None])
            Y.append(right.offset[:, None])
        if right.basis is not None:  # (Ã + L_A) L_B
            thin = left.scale[:, None] * qw
            if left.offset is not None:
                thin = thin + left.offset[:, None] * xp.sum(right.thin, axis=1)
            if left.basis is not None and terms == "full":
                thin = thin + left.basis @ (left.thin_scale[:, None] * vw)
            X.append(thin * right.thin_scale)
            Y.append(right.basis)
        if left.basis is not None:  # L_A B̃
            X.append(left.basis)
            Y.append(right.scale[:, None] * pv * left.thin_scale)
        if not X:
            return left.scale[:, None][:, :0], right.scale[:, None][:, :0]
        return xp.concat(X, axis=1), xp.concat(Y, axis=1)


def _dominant(Q: Array, rank: int, small: Callable[[], Array]) -> Array:
    """The `rank` directions of Q that hold most of `small()` = Mᵀ Q."""
    if Q.shape[1] <= rank:
        return Q
    S = small()
    with phase("factorize"):
        xp = array_namespace(Q)
        S = xp.astype(S, xp.float64)
        vectors = xp.linalg.eigh(S.T @ S)[1]  # eigenvalues ascend
        return Q @ xp.astype(vectors[:, -rank:], xp.float32)
