"""Errors of products, relative to the product in float64."""

import math
from collections.abc import Iterator

from lrqmm.bench.measures._experiment import Row, Shard
from lrqmm.bench.measures._products import Pair, Products, error_row, modelled_cost, scores
from lrqmm.method import Method, get_method


class Error(Products):
    """Errors of products, and scores of workloads."""

    name = "error"
    metric = "relative_error"

    cost: bool = False
    """Whether the modelled cost is recorded as well."""
    held_out: bool = False
    """Whether the first half of A's rows is for methods that calibrate, and the other half is
    measured, by all.
    """

    def measured_rows(self, m: int) -> int | None:
        return m - m // 2 if self.held_out else None

    def rows_asked(self, shard: Shard) -> tuple[list[str], int]:
        columns, rows = super().rows_asked(shard)
        halved = self.held_out and all(pair.m > 1 for pair in shard.inputs)  # a row has no half
        if halved and get_method(str(shard.method)).calibrated:  # on its own rows, and on others
            return [*columns, "calibration"], 2 * rows
        return columns, rows

    def of_product(self, method: Method, pair: Pair) -> Iterator[Row]:
        sample = pair.sample if pair.columns.get("calibration") == "held_out" else None
        C = method.matmul(pair.A, pair.B, calibration=sample)
        yield error_row(C, pair)
        yield from scores(C, pair)
        predicted = method.predicted_error(pair.A, pair.B)
        if predicted is not None and math.isfinite(predicted):
            yield {"metric": "predicted_error", "value": predicted}
        if self.cost:
            yield from modelled_cost(method, pair)


MEASURE = Error
