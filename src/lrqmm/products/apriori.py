"""The error of a direct product before it is multiplied, from O(n²) statistics of its residuals.

With m_A the mean of each row's residual over its positive, negative and zero elements apart,
e_A = R_A - m_A, and the same by column for B,

    A B - Ã B̃  ≈  D + noise,    D = A m_B + m_A B - m_A m_B,
    E‖noise‖² = V = Σ_k (α_k ‖e_B,k‖² + ‖e_A,k‖² β_k + ‖e_A,k‖² ‖e_B,k‖²)

where α_k and β_k are the energies of column k of A - m_A and of row k of B - m_B, both centred, and
e_A,k is column k of e_A, e_B,k row k of e_B. The predicted relative error is
sqrt((‖D‖² + V) / ‖A B‖²). The textbook's s²/12 for each residual holds for zero-mean data only.
Source: this project.
"""

from typing import Any

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm.products.backends import backend_of
from lrqmm.products.operands import checked_pair
from lrqmm.products.parts import Compensator, Transform
from lrqmm.products.quantize import Quantizer, Uniform
from lrqmm.products.rsvd import sketch_matrix
from lrqmm.products.scaling import near_one

__all__ = ["predicted_error"]

PROBES = 16


def predicted_error(A: Array, B: Array, *, mean_removed: bool = False, **params: Any) -> float:
    """Relative Frobenius error that `direct` will have, in O((m + n) k) operations.

    Parameters
    ----------
    A : (m, k) array, floating
    B : (k, n) array of the same library
    mean_removed : of a product whose residuals' means are compensated (`mean_fix`, or `lrqmm` at
        rank 1)
    **params : of the quantiser, such as `bits`; see `lrqmm.products.quantize.Uniform`

    Raises
    ------
    TypeError, ValueError : operands as in `lrqmm.matmul`, or with more than two dimensions; a
        parameter that the quantiser does not have, or its value

    Notes
    -----
    Norms of products come from the ones direction exactly and from `PROBES` random ones.

    Examples
    --------
    >>> import numpy as np, lrqmm
    >>> A, B = np.random.default_rng(0).standard_normal((2, 128, 128), dtype=np.float32)
    >>> C = lrqmm.matmul(A, B, "direct", bits=4)
    >>> error = np.linalg.norm(C - A @ B) / np.linalg.norm(A @ B)
    >>> bool(abs(lrqmm.products.apriori.predicted_error(A, B, bits=4) / error - 1) < 0.1)
    True
    """
    left, right = checked_pair(A, B)
    with backend_of(left).usual_state(left, "ieee"):
        return _predict(left, right, Uniform(**params), mean_removed)


def prediction(
    transform: Transform, quantizer: Quantizer, compensator: Compensator, A: Array, B: Array
) -> float | None:
    """The same for a composition, or None: it needs uniform levels, a transform that is not
    calibrated, and no correction but one of the means."""
    known = compensator.span in ("nothing", "means")
    if type(quantizer) is not Uniform or transform.calibrated or not known:
        return None
    fitted = transform.fit(B, quantizer, None)
    A, B = transform.left(A, fitted), transform.right(B, fitted)
    return _predict(A, B, quantizer, compensator.span == "means")


def _predict(A: Array, B: Array, quantizer: Uniform, mean_removed: bool) -> float:
    xp = array_namespace(A)
    A, B = near_one(A)[0], near_one(B)[0]  # of which the error does not depend
    R_A = A - quantizer.left.quantize(A).dequantize()
    R_Bt = B.T - quantizer.quantize(B.T).dequantize()
    m_A, m_B = means_by_sign(A, R_A), means_by_sign(B.T, R_Bt).T
    of_a = xp.sum((R_A - m_A) ** 2, axis=0)  # ‖e_A,k‖²
    of_b = xp.sum((R_Bt.T - m_B) ** 2, axis=1)
    alpha = xp.sum(_centred(A - m_A) ** 2, axis=0)
    beta = xp.sum(_centred(B - m_B) ** 2, axis=1)
    V = xp.sum(alpha * of_b) + xp.sum(of_a * beta)
    if not (mean_removed and quantizer.rounding == "nearest"):
        V = V + xp.sum(of_a * of_b)
    D = 0.0
    if not mean_removed:
        D = _energy(lambda Y: A @ (m_B @ Y) + m_A @ (B @ Y) - m_A @ (m_B @ Y), B)
    C = _energy(lambda Y: A @ (B @ Y), B)
    missed = D + float(V)
    if C == 0:  # as of a measured error
        return 0.0 if missed == 0 else float("inf")
    return float((missed / C) ** 0.5)


def means_by_sign(X: Array, R: Array) -> Array:
    """For every element of X (rows, k) the mean of R over the elements of its row and sign."""
    xp = array_namespace(X)
    means = xp.zeros_like(X)
    for chosen in (X > 0, X < 0, X == 0):
        weight = xp.astype(chosen, X.dtype)
        count = xp.clip(xp.sum(weight, axis=1, keepdims=True), min=1.0)
        means = means + weight * (xp.sum(R * weight, axis=1, keepdims=True) / count)
    return means


def _centred(X: Array) -> Array:
    xp = array_namespace(X)
    X = X - xp.mean(X, axis=0, keepdims=True)
    return X - xp.mean(X, axis=1, keepdims=True)


def _energy(times: Any, B: Array) -> float:
    """‖M‖² of a map on vectors of length n: exact along the ones, by probes across them."""
    xp = array_namespace(B)
    n = B.shape[1]
    ones = xp.ones_like(B[:1, :]).T / n**0.5
    Y = sketch_matrix(B, n, PROBES, "gaussian", (0, 3))
    Y = Y - ones @ (ones.T @ Y)
    return float(xp.sum(times(ones) ** 2)) + float(xp.sum(times(Y) ** 2)) / PROBES
