"""TF32 tensor cores (CUDA, compute capability 8.0 or higher): 10-bit mantissas, float32 sums."""

from lrqmm.floatproduct import FloatProduct

METHOD = FloatProduct("tf32", "tf32")
