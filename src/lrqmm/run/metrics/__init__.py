"""Every metric that a run's tables may hold.

A file here names some: in `PRODUCTS` those of products, in `NETWORKS` those of whole networks and
of their layers. A new metric is a file, or a line of one.
"""

import importlib

from lrqmm._registry import Registry
from lrqmm.run.metrics._metric import Metric


def _metrics(attribute: str) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    for name in Registry[Metric](__name__, attribute).names():
        module = importlib.import_module(f"{__name__}.{name}")
        for metric in getattr(module, attribute, ()):
            if metric.name in metrics:
                raise ValueError(f"run/metrics/{name}.py: {metric.name!r} is a metric already")
            metrics[metric.name] = metric
    return metrics


PRODUCTS = _metrics("PRODUCTS")
"""Metrics of products, by name."""

NETWORKS = _metrics("NETWORKS")
"""Metrics of whole networks and of their layers, by name."""

TIMES = ("seconds", "call_seconds", "seconds_per_item")
"""Metrics that are measured only on an otherwise idle machine."""
