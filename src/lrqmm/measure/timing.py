"""Timing: methods interleaved round by round, every sample kept, phases beside the whole."""

from __future__ import annotations

from collections.abc import Mapping

from lrqmm._checks import Array
from lrqmm.backends import backend_of
from lrqmm.method import Method
from lrqmm.phases import record

WARM_UP = 2


def time_methods(
    methods: Mapping[str, Method], A: Array, B: Array, samples: int
) -> dict[str, list[dict[str, float]]]:
    """Seconds by phase of each of `samples` products, for each method.

    Every round runs every method once, so that a change of the machine's pace meets them all.
    B is prepared in every product; the search for NaN is left out, as it is for every method.
    """
    synchronize = backend_of(A).synchronize
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for round_ in range(-WARM_UP, samples):
        for name, method in methods.items():
            with record(lambda: synchronize(A)) as phases:
                method.matmul(A, B, check_finite=False)
            if round_ >= 0:
                seconds[name].append(phases)
    return seconds
