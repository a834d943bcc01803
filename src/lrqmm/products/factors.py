"""Thin factors: the low-rank parts of two residuals, put back into the product at once."""

from __future__ import annotations

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm.products.parts import Operand
from lrqmm.products.phases import phase
from lrqmm.products.quantize import Uniform

Factors = tuple[Array, Array]
"""(U, V): thin factors whose product is the low-rank part of a residual."""


def compensate(
    A: Operand, B: Operand, left: Factors | None, right: Factors | None, terms: str
) -> Array:
    """The correction of Ã B̃ as one product of thin matrices, (m x 2r) by (2r x n)."""
    xp = array_namespace(A.exact)
    with phase("correct"):
        columns, rows = [], []
        if right is not None:
            U_B, V_B = right
            thin = A.approx @ U_B
            if terms == "full" and left is not None:
                thin = thin + left[0] @ (left[1] @ U_B)
            columns.append(thin)
            rows.append(V_B)
        if left is not None:
            U_A, V_A = left
            columns.append(U_A)
            rows.append(V_A @ (B.exact if terms == "exact" else B.approx))
        return xp.concat(columns, axis=1) @ xp.concat(rows, axis=0)


def stored(factors: Factors, dtype: str) -> Factors:
    """The factors as they are kept: in 'int8' the columns of U and the rows of V are rounded."""
    U, V = factors
    if dtype == "float32" or 0 in U.shape:
        return factors
    U, V = (Uniform().quantize(X).dequantize() for X in (U.T, V))
    return U.T, V
