"""bfloat16 operands and result, as `torch.matmul` gives it; the casts count as part of the time."""

from lrqmm.floatproduct import FloatProduct

METHOD = FloatProduct("bf16", "bfloat16")
