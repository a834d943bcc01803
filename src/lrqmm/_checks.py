"""The one validation layer: every public argument is checked here, at the door."""

import difflib
import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Array = Any
"""A NumPy, torch, CuPy or other array-API array."""


LARGEST = 2.0**120
"""Largest magnitude of an element: sums and scales of larger ones overflow float32."""
SMALLEST = 2.0**-119
"""Of a matrix' largest magnitude: its scale at 8 bits is then still a normal float32."""


class Unsupported(RuntimeError):
    """A method or setting that this device or library cannot run; the message says why.

    Examples
    --------
    >>> import numpy as np, lrqmm
    >>> A, B = np.random.default_rng(0).random((2, 8, 8), dtype=np.float32)
    >>> lrqmm.matmul(A, B, "tf32")
    Traceback (most recent call last):
        ...
    lrqmm._checks.Unsupported: NumPy has no tf32 product
    """


EXPECTED = (ImportError, OSError, TypeError, Unsupported, ValueError)
"""Errors whose messages are written for users."""


def expected(error: Exception) -> bool:
    """Whether an error's message says to a user what is wrong: not a library's failure inside."""
    failure = isinstance(error, MemoryError) or "LinAlg" in type(error).__name__
    return (isinstance(error, EXPECTED) or type(error) is ArithmeticError) and not failure


def in_words(error: Exception) -> str:
    """An error in words; one that was not expected with its type."""
    message = " ".join(str(error).split())
    if expected(error) and message:
        return message
    empty = "not enough memory" if isinstance(error, MemoryError) else "no reason is given"
    return f"{type(error).__name__}: {message or empty}"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Let whatever a damaged file raises be a ValueError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # readers raise almost anything
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} cannot be read: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What a reader says of a file, in a line; where NumPy asks to unpickle it, what it is."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return "it is no NumPy file, or one of Python objects" if "pickle" in line.lower() else line


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return `value` as an int within [low, high], or raise naming `name` and what is allowed."""
    allowed = f"an integer of at least {low}" if high is None else f"an integer {low} to {high}"
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; allowed: {allowed}") from None
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name} is {number}; allowed: {allowed}")
    return number


def real(name: str, value: Any, low: float, high: float) -> None:
    """Raise naming `name` and what is allowed unless `value` is a number within [low, high]."""
    allowed = f"a number from {low:g} to {high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}; allowed: {allowed}")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; allowed: {allowed}")


def choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        listed = ", ".join(repr(a) for a in allowed)
        raise ValueError(f"{name} is {value!r}{suggestion(value, allowed)}; allowed: {listed}")


def known(problem: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise TypeError if one of `names` is not in `allowed`."""
    allowed = sorted(allowed)
    for name in names:
        if name not in allowed:
            listed = ", ".join(allowed) or "none"
            raise TypeError(f"{problem} {name!r}{suggestion(name, allowed)}; allowed: {listed}")


def suggestion(value: Any, allowed: Iterable[Any]) -> str:
    """' (did you mean ...?)' for a near miss, else nothing."""
    near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def rank(value: int | None, m: int, k: int, n: int) -> None:
    """Raise ValueError if an explicit rank exceeds the limit of an m x k by k x n product."""
    limit = max(min(m, k), min(k, n))
    if value is not None and value > limit:
        raise ValueError(
            f"rank is {value}; allowed: 0 to max(min(m, k), min(k, n)) = {limit} "
            f"for a {m} x {k} by {k} x {n} product"
        )
