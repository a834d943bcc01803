"""bfloat16 operands and result, as `torch.matmul` gives it; the casts count as part of the time.

Source: the format is described by Kalamkar et al., arXiv 1905.12322; the product is torch's.
"""

from lrqmm.products.floatproduct import FloatProduct

METHOD = FloatProduct(
    "bf16",
    "bfloat16",
    title="bfloat16",
    needs="torch arrays",
    cites=("kalamkar2019bfloat16",),
    usual=True,
)
