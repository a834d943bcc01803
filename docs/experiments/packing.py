"""Packing and unpacking beside a copy of the codes: bytes per second over one thread's copy.

    python docs/experiments/packing.py [threads]

All three write to fresh memory. Best of 15 rounds; for an idle machine; about a minute.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numba
import numpy as np

from lrqmm.products.packing import pack, unpack

CODES = 2**25


def best(call: Callable[[], object]) -> float:
    """Seconds of the fastest of 15 calls; two before them compile and warm up."""
    seconds = []
    for _ in range(17):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds[2:])


def main() -> None:
    if len(sys.argv) > 1:
        numba.set_num_threads(int(sys.argv[1]))
    print(f"{numba.get_num_threads()} threads\n\n| k | bits | copy, GB/s | pack | unpack |")
    print("|---|---|---|---|---|")
    for k in (8192, 4097, 1001):
        for bits in range(1, 9):
            half = 2 ** (bits - 1)
            codes = np.random.default_rng(0).integers(-half, half, (CODES // k, k), dtype=np.int8)
            packed = pack(codes, bits)
            copy = 2 * codes.nbytes / best(codes.copy)
            moved = codes.nbytes + packed.nbytes
            packing = moved / best(lambda: pack(codes, bits)) / copy  # noqa: B023
            unpacking = moved / best(lambda: unpack(packed, bits, k)) / copy  # noqa: B023
            print(f"| {k} | {bits} | {copy / 1e9:.1f} | {packing:.2f} | {unpacking:.2f} |")


if __name__ == "__main__":
    main()
