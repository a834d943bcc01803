"""Advice beside the exhaustive measurement: is the advised method as fast as the fastest?

    python docs/experiments/advice.py

Each candidate of `lrqmm.advise` multiplies the whole matrices 15 times, in turns with the others;
the winner is the fastest by its median among those that keep the error. The advised method should
lie within the winner's 5th to 95th percentile. For an idle machine; about a minute.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import torch

import lrqmm
from lrqmm import advice
from lrqmm.bench.sources.distributions import sample
from lrqmm.bench.sources.resnet50 import capture_resnet50
from lrqmm.error import exact_product, relative_error
from lrqmm.products.backends import backend_of
from lrqmm.timing import time_products

LAYER = "res3a_branch2b"
ROUNDS = 15


def cases():
    """Name, A, B and the error to keep."""
    for name, error in (("uniform01", 3e-3), ("normal", 5e-2)):
        yield name, *sample(name, 1024, 1024, 1024, seed=7), error
    layer = next(product for product in capture_resnet50(4) if product.name == LAYER)
    yield LAYER, layer.A, layer.B, 5e-2


def exhaustive(A, B, error):
    """Wall seconds of every candidate that keeps the error, by its name."""
    exact = exact_product(A.numpy(), B.numpy())
    products = {}
    for name, parameters in advice.candidates(A):
        method = lrqmm.get_method(name, **parameters)
        try:
            C = method.matmul(A, B)
        except (lrqmm.Unsupported, ValueError):
            continue
        if not method.emulated(A) and relative_error(C.numpy(), exact) <= error:
            products[name, str(parameters)] = partial(method.matmul, A, B, check_finite=False)
    backend = backend_of(A)
    sync, flush = partial(backend.synchronize, A), partial(backend.flush_cache, A)
    found = time_products(products, ROUNDS, sync, flush)
    return {key: [wall for wall, _ in samples] for key, samples in found.items()}


def main():
    for name, A, B, error in cases():
        A, B = torch.from_numpy(A), torch.from_numpy(B)
        start = time.perf_counter()
        advised = lrqmm.advise(A, B, max_error=error).best
        took = time.perf_counter() - start
        walls = exhaustive(A, B, error)
        own = 1e3 * np.median(walls[advised["method"], str(advised["parameters"])])
        winner = min(walls, key=lambda key: np.median(walls[key]))
        low, middle, high = 1e3 * np.percentile(walls[winner], [5, 50, 95])
        print(
            f"{name}, error {error:g}, advised in {took:.1f} s: {advised['method']} "
            f"{advised['parameters']} {own:.2f} ms; winner {' '.join(winner)} {middle:.2f} ms "
            f"[{low:.2f}, {high:.2f}]: {'inside' if own <= high else 'OUTSIDE'}"
        )


if __name__ == "__main__":
    main()
