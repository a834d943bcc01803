"""float8_e4m3fn operands with one scale per vector, the result in float32.

`fp8` without the rounding of its result to bfloat16, which `torch._scaled_mm` does where it takes
one scale per vector. The codes are multiplied in float32: the error means something, the time does
not, and is refused.
Source: as of `fp8`.
"""

from lrqmm.methods.fp8 import Float8

METHOD = Float8(
    "fp8_f32",
    "float8",
    title="float8 (e4m3), float32 result",
    needs="torch arrays",
    cites=("micikevicius2022fp8",),
    rounded=False,
)
