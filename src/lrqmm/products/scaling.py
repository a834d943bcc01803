"""Powers of two, exactly, and sums in float64: what keeps numbers in range and reproducible.

Operands may be as small as 2^-119 and as large as 2^120, and float32 does not hold their squares,
nor long sums of the largest. What needs those works on X / p, with p a power of two, and multiplies
its answer by p: that rounds nothing, so a method does to s A and t B what it does to A and B.

The order in which a library adds up changes with its number of threads, and with it the last bits
of a float32 sum or decomposition. That is harmless in an answer. Before a rounding it is not: one
bit turns a code to its neighbour, and the answer by 10⁻⁴ or more. Summed in float64 and rounded to
float32, the numbers that are quantised are the same for any number of threads.
"""

from array_api_compat import array_namespace

from lrqmm._checks import Array


def power_of_two(x: Array) -> Array:
    """The largest powers of two that are at most x; 0 for 0.

    Exact, also one step below a power of two, where a logarithm rounds up to it.

    Parameters
    ----------
    x : array of floats of at least 0, of the range of float32

    Returns
    -------
    float64 array of the same shape

    Notes
    -----
    Source: Rump, Ogita, Oishi, doi:10.1137/050645671, algorithm 3.5 of "Accurate floating-point
    summation", part I (the unit in the first place, by four operations).

    Examples
    --------
    >>> import numpy as np
    >>> from lrqmm.products.scaling import power_of_two
    >>> power_of_two(np.float32([0, 0.3, 7.9999995, 8])).tolist()
    [0.0, 0.25, 4.0, 8.0]
    """
    xp = array_namespace(x)
    far = xp.astype(x, xp.float64) * (2.0**52 + 1)
    return far - far * (1 - 2.0**-53)


def near_one(X: Array, axis: int | tuple[int, ...] | None = None) -> tuple[Array, Array]:
    """X / p, whose largest magnitude over the axes is in [1, 2), and p.

    p is a power of two of X's dtype, with the reduced axes kept; 1 where X is zero, empty or not
    finite. Elements below 2^-126 of the largest lose bits.

    Examples
    --------
    >>> import numpy as np
    >>> from lrqmm.products.scaling import near_one
    >>> near, power = near_one(np.float32([[3e30, -1e30]]))
    >>> float(abs(near).max()) < 2, float(power[0, 0]) == 2.0**101
    (True, True)
    """
    xp = array_namespace(X)
    if 0 in X.shape:
        return X, xp.ones_like(xp.sum(X, axis=axis, keepdims=True))
    power = power_of_two(xp.max(xp.abs(X), axis=axis, keepdims=True))
    power = xp.astype(xp.where(power > 0, power, xp.ones_like(power)), X.dtype)
    return X / power, power


def energy(X: Array) -> float:
    """The sum of X's squares, which float64 holds for every operand."""
    xp = array_namespace(X)
    return float(xp.sum(xp.astype(X, xp.float64) ** 2))


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
