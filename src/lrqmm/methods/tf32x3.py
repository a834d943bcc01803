"""TF32x3: float32 products from three TF32 ones, about 22 bits of each operand.

Source: Ootomo, Yokota, arXiv 2203.03341 (without their scaling); formula in `splitfloat`.
"""

from lrqmm.products.splitfloat import SplitProduct

METHOD = SplitProduct("tf32x3", "tf32", cites=("ootomo2022tf32",))
