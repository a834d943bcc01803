"""Operations and bytes of products, as modelled and as counted in torch's calls."""

from collections.abc import Iterator

from lrqmm.bench.measures._experiment import Row
from lrqmm.bench.measures._products import Pair, Products, modelled_cost
from lrqmm.method import Method


class Count(Products):
    """Operations and bytes of products, modelled and counted."""

    name = "count"
    metric = "bytes"

    def of_product(self, method: Method, pair: Pair) -> Iterator[Row]:
        from lrqmm.bench.measures._counter import count  # which loads torch

        for metric, value in count(method, pair.A, pair.B).items():
            yield {"metric": metric, "phase": "counted", "value": float(value)}
        yield from modelled_cost(method, pair)


MEASURE = Count
