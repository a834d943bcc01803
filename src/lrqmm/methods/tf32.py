"""TF32 tensor cores (CUDA, compute capability 8.0 or higher): 10-bit mantissas, float32 sums.

Source: NVIDIA, "NVIDIA A100 Tensor Core GPU Architecture" (2020).
"""

from lrqmm.products.floatproduct import FloatProduct

METHOD = FloatProduct(
    "tf32",
    "tf32",
    title="TF32",
    needs="torch arrays on CUDA",
    cites=("nvidia2020ampere",),
    usual=True,
)
