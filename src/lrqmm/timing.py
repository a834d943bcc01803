"""Timing: products interleaved round by round, every sample kept, wall and processor time."""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from lrqmm.products.phases import record

WARM_UP = 2

Key = TypeVar("Key", bound=Hashable)
Product = Callable[[], object]


def time_products(
    products: Mapping[Key, Product],
    samples: int,
    synchronize: Callable[[], None],
    flush: Callable[[], None] = lambda: None,
) -> dict[Key, list[tuple[float, float]]]:
    """Wall and processor seconds of each of `samples` calls, for each product.

    Every round runs every product once, so that a change of the machine's pace meets them all.
    `flush` empties the device's cache before each call, `synchronize` waits for its queue.
    """
    seconds: dict[Key, list[tuple[float, float]]] = {key: [] for key in products}
    for round_ in range(-WARM_UP, samples):
        for key, product in products.items():
            flush()
            synchronize()
            wall, cpu = time.perf_counter(), time.process_time()
            product()
            synchronize()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            if round_ >= 0:
                seconds[key].append(spent)
    return seconds


def time_phases(
    product: Product, samples: int, synchronize: Callable[[], None]
) -> list[dict[str, float]]:
    """Seconds of each phase, of `samples` calls; not timed as a whole, since waiting at each phase
    takes time."""
    calls = []
    for _ in range(samples):
        with record(synchronize) as phases:
            product()
        calls.append(phases)
    return calls
