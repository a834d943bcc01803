"""Every metric that a run's tables may hold. A new metric is a line here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Metric:
    """What a value means.

    Attributes
    ----------
    name : in the column `metric`
    title : heading of a column or axis
    better : which values are better; None where neither is
    least, most : range of possible values
    form : format of a value in a table
    scale : what a value is multiplied by before it is formatted
    score : whether results are judged by it, beside their error
    main : whether `lrqmm compare` compares it
    detail : whether it is left out of overviews, as the errors of single layers are
    interval : whether overviews show its 95% interval
    """

    name: str
    title: str
    better: Better | None = None
    least: float = 0.0
    most: float = math.inf
    form: str = "{:.3g}"
    scale: float = 1.0
    score: bool = False
    main: bool = False
    detail: bool = False
    interval: bool = False

    def text(self, value: float) -> str:
        """A value as tables show it."""
        return self.form.format(self.scale * value)


_PERCENT = "{:.1%}"

PRODUCTS = {
    metric.name: metric
    for metric in (
        Metric("relative_error", "relative error", "lower", main=True),
        # before multiplying; see `lrqmm.products.apriori`
        Metric("predicted_error", "predicted error", "lower"),
        Metric("seconds", "s", "lower", main=True),
        Metric("cpu_seconds", "CPU s", "lower"),
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
}
"""Metrics of products, by name."""

NETWORKS = {
    metric.name: metric
    for metric in (
        Metric("top1", "top-1", "higher", most=1, form=_PERCENT, score=True, main=True,
               interval=True),
        Metric("top1_drop", "below float", "lower", least=-1, most=1, form=_PERCENT, interval=True),
        Metric("top5", "top-5", "higher", most=1, form=_PERCENT),
        Metric("agreement", "agrees with float", "higher", most=1, form=_PERCENT, score=True,
               main=True, interval=True),
        Metric("perplexity", "perplexity", "lower", least=1, form="{:.2f}", score=True, main=True,
               interval=True),
        Metric("cosine", "cosine to float", "higher", least=-1.000001, most=1.000001,
               form="{:.4f}", score=True, main=True, interval=True),
        Metric("kl", "KL (nats)", "lower", least=-1e-6, interval=True),  # rounding errors
        Metric("relative_error", "error of outputs", "lower", interval=True),
        Metric("relative_error_median", "median error of outputs", "lower", detail=True),
        Metric("moved_by_others", "moved by others", "lower"),
        Metric("average_bits", "average bits", "lower", form="{:.2f}", main=True),
        Metric("weight_bits", "bits per weight", "lower", detail=True),
        Metric("integer_operations", "integer Gop per item", "lower", scale=1e-9),
        Metric("float_operations", "float Gop per item", "lower", scale=1e-9),
        Metric("seconds_per_item", "s per item", "lower", main=True),
        Metric("times_float_speed", "times float's speed", "higher"),
        Metric("alone_error", "error on float activations", "lower", detail=True),
        Metric("own_error", "own error", "lower", detail=True),
        Metric("accumulated_error", "accumulated error", "lower", detail=True),
        Metric("rank", "rank", detail=True),
    )
}  # fmt: skip
"""Metrics of whole networks and of their layers, by name, in the order of table 4."""

TIMES = ("seconds", "seconds_per_item")
"""Metrics that are measured only on an otherwise idle machine."""
