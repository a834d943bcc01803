"""Sums in float64, for what is rounded to codes afterwards.

The order in which a library adds up changes with its number of threads, and with it the last bits
of a float32 sum or decomposition. That is harmless in an answer. Before a rounding it is not: one
bit turns a code to its neighbour, and the answer by 10⁻⁴ or more. Summed in float64 and rounded to
float32, the numbers that are quantised are the same for any number of threads.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from lrqmm._checks import Array


def in_float32(X: Array) -> Array:
    """X rounded to float32; X itself where it is."""
    xp = array_namespace(X)
    return xp.astype(X, xp.float32, copy=False)


def in_float64(X: Array) -> Array:
    """X in float64; X itself where it is."""
    xp = array_namespace(X)
    return xp.astype(X, xp.float64, copy=False)


def summed_in_float64(X: Array, Y: Array) -> Array:
    """X Y (m x n), summed in float64 and rounded to float32."""
    return in_float32(in_float64(X) @ in_float64(Y))
