"""Metrics of products."""

import math

from lrqmm.run.metrics._metric import Metric

PRODUCTS = (
    Metric("relative_error", "relative error", "lower", main=True),
    # before multiplying; see `lrqmm.products.apriori`
    Metric("predicted_error", "predicted error", "lower"),
    Metric("seconds", "s", "lower", main=True),
    Metric("cpu_seconds", "CPU s", "lower"),
    # operands looked at, a fresh result: what is left out of the metric `seconds`
    Metric("call_seconds", "s, as called", "lower"),
    Metric("peak_bytes", "peak bytes", "lower"),
    Metric("code_bytes", "bytes of codes", "lower"),
    Metric("unpack_seconds", "s of unpacking", "lower"),
    Metric("copy_bytes_per_second", "bytes copied per second", "higher"),
    Metric("integer_operations_per_second", "integer operations per second", "higher"),
    Metric("float_operations_per_second", "float operations per second", "higher"),
    Metric("clock_hz", "clock, Hz"),
    Metric("integer_operations", "integer Gop", "lower", scale=1e-9),
    Metric("float_operations", "float Gop", "lower", scale=1e-9),
    Metric("bytes", "GB", "lower", scale=1e-9),
    Metric("operand_bits", "bits of both operands", "lower"),
    Metric("right_bits", "bits of the right operand", "lower"),
    # of pictures
    Metric("psnr", "PSNR, dB", "higher", least=-math.inf, score=True),
    Metric("ssim", "SSIM", "higher", least=-1, most=1),
    # share of nearest neighbours that are right
    Metric("accuracy", "accuracy", "higher", most=1, score=True),
    # of entries off the diagonal, against the kernel itself
    Metric("gram_error", "error of the kernel", "lower", score=True),
)
