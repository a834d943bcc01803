"""bf16x3: float32 products from three bfloat16 ones, about 16 bits of each operand.

Source: Henry, Tang, Heinecke, arXiv 1904.06376; formula in `splitfloat`.
"""

from lrqmm.products.splitfloat import SplitProduct

METHOD = SplitProduct("bf16x3", "bfloat16", cites=("henry2019bfloat16",))
