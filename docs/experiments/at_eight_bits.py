"""Eight bits and a little: with a correction, in groups, as bfloat16.

    python docs/experiments/at_eight_bits.py

Relative errors of products of n = 1024, on five kinds of data: int8 with one scale per vector and
with one per 128 elements, with a zero point, LRQMM and product-aware LRQMM of rank 16 on int8 with
one scale per vector, bfloat16 with results in bfloat16 and in float32. Medians [least, largest] of
the seeds; errors do not depend on the machine's load. The table is printed as Markdown; what it
says is in `docs/results.md`. About a minute.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import lrqmm
from lrqmm.bench.sources.distributions import DISTRIBUTIONS, sample
from lrqmm.error import exact_product, relative_error

SIZE, SEEDS, RANK = 1024, 3, 16
DATA = ("normal", "uniform01", "exponential", "outliers", "lowrank")
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("direct", {}),
    "int8, groups of 128": ("direct", {"granularity": "group:128"}),
    "int8, zero points": ("affine", {}),
    "int8, zero points, groups of 128": ("affine", {"granularity": "group:128"}),
    f"LRQMM r={RANK}": ("lrqmm", {"rank": RANK}),
    f"product-aware r={RANK}": ("lrqmm_aware", {"rank": RANK}),
    "bfloat16": ("bf16", {}),
    "bfloat16, float32 result": ("bf16_f32", {}),
}


def errors(distribution: str, seed: int) -> dict[str, float]:
    """The relative error of each method on one pair of matrices."""
    A, B = sample(distribution, SIZE, SIZE, SIZE, seed=seed)
    exact = exact_product(A, B)
    left, right = torch.from_numpy(A), torch.from_numpy(B)
    return {
        name: relative_error(lrqmm.matmul(left, right, method, **parameters).numpy(), exact)
        for name, (method, parameters) in METHODS.items()
    }


def bits(method: str, parameters: dict[str, Any]) -> float:
    """What an element of both operands takes, with scales and factors."""
    cost = lrqmm.get_method(method, **parameters).cost(SIZE, SIZE, SIZE)
    return cost.operand_bits / (2 * SIZE**2)


def main() -> None:
    found = {name: [errors(name, seed) for seed in range(SEEDS)] for name in DATA}
    print("| method | bits |", " | ".join(DISTRIBUTIONS[name][0] for name in DATA), "|")
    print("|---" * (2 + len(DATA)), end="|\n")
    for name, setting in METHODS.items():
        cells = []
        for each in found.values():
            values = [seed[name] for seed in each]
            cells.append(f"{np.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]")
        print(f"| {name} | {bits(*setting):.2f} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
