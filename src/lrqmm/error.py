"""The error of a product."""

import numpy as np
from numpy.typing import NDArray


def exact_product(A: NDArray[np.floating], B: NDArray[np.floating]) -> NDArray[np.float64]:
    """A B in float64, the reference of every error."""
    return A.astype(np.float64, copy=False) @ B.astype(np.float64, copy=False)


def relative_error(C: NDArray[np.floating], exact: NDArray[np.float64]) -> float:
    """‖C - AB‖ / ‖AB‖ in the Frobenius norm; 0 for 0/0. NaN where C holds NaN."""
    unit = np.ldexp(1.0, np.frexp(np.abs(exact).max(initial=0.0))[1])  # squares stay in range
    error = float(np.linalg.norm((C.astype(np.float64) - exact) / unit))
    norm = float(np.linalg.norm(exact / unit))
    if norm == 0:
        return 0.0 if error == 0 else float("inf")
    return error / norm
