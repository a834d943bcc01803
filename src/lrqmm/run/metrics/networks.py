"""Metrics of whole networks and of their layers, in the order of table 4."""

from lrqmm.run.metrics._metric import Metric

_PERCENT = "{:.1%}"

NETWORKS = (
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
)  # fmt: skip
