"""SGEMM: the product in float32 (TF32 switched off), the baseline of every speed figure.

Source: the level 3 BLAS, Dongarra, Du Croz, Duff, Hammarling (1990).
"""

from lrqmm.products.floatproduct import FloatProduct

METHOD = FloatProduct(
    "sgemm",
    "float32",
    title="SGEMM (float32)",
    short="SGEMM",
    cites=("dongarra1990blas",),
    usual=True,
)
