"""SGEMM: the product in float32 (TF32 switched off), the baseline of every speed figure."""

from lrqmm.floatproduct import FloatProduct

METHOD = FloatProduct("sgemm", "float32")
