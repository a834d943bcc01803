"""Uniform quantisation to 1 to 8 bits.

An operand is quantised along its last axis, the inner dimension k of the product, so the right
operand B (k x n) is quantised as its transpose. In every vector (or tensor, or group of columns)

    X  ≈  X̃ = scale * codes + offset,      codes integer, offset = 0 without a zero point.

Source: the scale max|X| / (2^(b-1) - 1), per tensor or "vector-wise", is our reading of LRQMM
(arXiv 2409.18772) and its predecessor (arXiv 2403.06924); zero points follow Jacob et al.
(arXiv 1712.05877). The scale signed by the extreme element is that of the GGUF formats Q4_0 and
Q5_0 (llama.cpp) and of ONNX Runtime's and NNCF's symmetric 4-bit weights; max|X| / (2^(b-1) - 1/2)
is that of LLM Compressor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any, ClassVar

from array_api_compat import array_namespace

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm._parameters import Checked, one_of, whole
from lrqmm._repr import Shown
from lrqmm.products.quantized import Quantized

__all__ = ["Quantizer", "Uniform", "WeightOnly"]

SCALE_BITS = 32
ZERO_POINTS = (None, "integer", "float")
LEVELS = ("odd", "signed", "even")
SMALLEST_SCALE = 2.0**-126  # the smallest normal float32: a vector below it is quantised to zero


Encoded = tuple[Array, Array, Array | None]
"""Codes, scale and offset, before they are cut to size and stored as integers."""


@dataclass(frozen=True, kw_only=True)
class Quantizer(Shown, Checked, ABC):
    """Maps vectors to integer codes; subclasses choose the levels.

    Parameters
    ----------
    bits : 2 to 8; `Uniform` with a float zero point has 1 too
    bits_a : of the left operand, where it has others than the right one
    granularity : scales shared by a 'vector' (row of A, column of B), the whole 'tensor', or
        'group:N' (N consecutive elements of a vector; the last group may be shorter)

    Raises
    ------
    TypeError : bits that are no integer
    ValueError : bits out of range, another granularity

    Examples
    --------
    One is made by saying its levels, here five of them:

    >>> import numpy as np
    >>> from lrqmm.products.quantize import Quantizer, scale_to_top
    >>> class FiveLevels(Quantizer):
    ...     def encode(self, xp, x, axes):
    ...         scaled, scale, _ = scale_to_top(xp, x, axes, 2)
    ...         return xp.round(scaled), scale, None
    >>> FiveLevels(bits=3).quantize(np.array([[1.0, -0.4, 0.2]], np.float32)).codes.tolist()
    [[2, -1, 0]]
    """

    calibrated: ClassVar[bool] = False
    """Whether `quantize` takes left operands, (s, k), as `calibration`, for the right operand."""
    ahead: ClassVar[bool] = False
    """Whether it is made for weights, right operands that are known ahead of time."""
    integer: ClassVar[bool] = True
    """Whether codes are integers; floats are multiplied in float32, which only imitates them."""
    scale_bits: ClassVar[int] = SCALE_BITS

    bits: int = 8
    bits_a: int | None = whole(None, 2, 8)
    granularity: str = "vector"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.__dataclass_fields__["bits"].init:
            _checks.integer("bits", self.bits, self.fewest_bits, 8)
        group_length(self.granularity, 1)

    @property
    def fewest_bits(self) -> int:
        """With fewer there would be one level."""
        return 2

    @property
    def left(self) -> Quantizer:
        """The quantiser of the left operand; weight-only ones have a plain `Uniform` there."""
        return self if self.bits_a is None else replace(self, bits=self.bits_a, bits_a=None)

    @property
    def code_bits(self) -> int:
        """Bits that a signed code needs."""
        return self.bits

    @property
    def offsets(self) -> bool:
        """Whether vectors or groups have an offset, so a product has a thin one beside it."""
        return False

    def groups(self, k: int) -> int:
        """Groups of a vector of length k."""
        return -(-k // group_length(self.granularity, k))

    def stored_bits(self, rows: int, k: int) -> int:
        """Bits that hold a quantised operand: codes, and one scale per vector or group."""
        return self.bits * rows * k + self.scale_bits * self._scales(rows, k)

    def _scales(self, rows: int, k: int) -> int:
        return 1 if self.granularity == "tensor" else rows * self.groups(k)

    def quantize(self, X: Array) -> Quantized:
        """Quantise X, (rows, k) float32 and finite, along its last axis."""
        xp = array_namespace(X)
        rows, k = X.shape
        group = group_length(self.granularity, k)
        axes = shared_axes(self.granularity)
        codes, scale, offset = self.encode(xp, blocks(xp, X, group), axes)
        codes = xp.reshape(codes, (rows, -1))[:, :k]
        if self.integer:
            codes = stored_codes(xp, codes, xp.int8 if self.code_bits <= 8 else xp.int16)
        offset = None if offset is None else offset[:, :, 0]
        return Quantized(codes, scale[:, :, 0], offset, group)

    @abstractmethod
    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        """Codes (as floats), scale and offset of x, (rows, groups, group); scales span `axes`."""


@dataclass(frozen=True, kw_only=True)
class Uniform(Quantizer):
    """Equally spaced levels.

    Parameters
    ----------
    rounding : 'nearest' (ties to even) or 'truncate' (towards zero; with a float zero point towards
        the minimum). The extreme elements of a vector keep their level under truncation too.
    zero_point : None, 'integer' or 'float' (2^b levels from the minimum to the maximum; 'integer'
        represents zero exactly)
    levels : without a zero point. 'odd': 2^b - 1, as many above zero as below, scale = max|X| /
        (2^(b-1) - 1); the paper's. 'signed': 2^b, the one more on the side of the element of
        largest magnitude, which is kept: scale = -X_max / 2^(b-1) has its sign, and the other side
        is cut half a level or more below that magnitude. 'even': 2^b, the one more below zero,
        scale = max|X| / (2^(b-1) - 1/2), which cuts half a level of a positive extreme.
    zero_point_a : of the left operand; 'same' as the right one's

    Raises
    ------
    TypeError : bits that are no integer
    ValueError : bits out of range; another rounding, zero point or granularity

    Examples
    --------
    >>> import numpy as np
    >>> from lrqmm.products.quantize import Uniform
    >>> X = np.array([[1.0, -0.4, 0.2]], np.float32)
    >>> Uniform(bits=4).quantize(X).codes.tolist()
    [[7, -3, 1]]
    >>> Uniform(bits=4, rounding="truncate").quantize(X).codes.tolist()
    [[7, -2, 1]]
    >>> Uniform(bits=4, zero_point="float").quantize(X).codes.tolist()
    [[7, -8, -2]]
    >>> signed = Uniform(bits=4, levels="signed").quantize(X)
    >>> signed.codes.tolist(), signed.scale.tolist()
    ([[-8, 3, -2]], [[-0.125]])
    """

    rounding: str = one_of("nearest", "nearest", "truncate")
    levels: str = one_of("odd", *LEVELS)
    zero_point: str | None = one_of(None, *ZERO_POINTS)
    zero_point_a: str | None = one_of("same", "same", *ZERO_POINTS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels != "odd" and self.zero_point and self._zero_point_of_left:
            raise ValueError(
                f"levels is {self.levels!r}; allowed: 'odd' where both operands have zero points, "
                "which have all 2^b levels"
            )

    @property
    def fewest_bits(self) -> int:
        """One where both operands have a float zero point: the minimum and the maximum."""
        both = self.zero_point == "float" and self.zero_point_a in ("same", "float")
        return 1 if both else 2

    @property
    def left(self) -> Uniform:
        bits = self.bits if self.bits_a is None else self.bits_a
        zero_point = self._zero_point_of_left
        levels = "odd" if zero_point else self.levels
        return replace(
            self, bits=bits, bits_a=None, levels=levels, zero_point=zero_point, zero_point_a="same"
        )

    @property
    def _zero_point_of_left(self) -> str | None:
        return self.zero_point if self.zero_point_a == "same" else self.zero_point_a

    @property
    def offsets(self) -> bool:
        return self.zero_point is not None

    def stored_bits(self, rows: int, k: int) -> int:
        """With a zero point beside each scale: a code, or a float32."""
        each = {None: 0, "integer": self.bits, "float": SCALE_BITS}[self.zero_point]
        return super().stored_bits(rows, k) + each * self._scales(rows, k)

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        if self.zero_point is None:
            return self._symmetric(xp, x, axes)
        return self._affine(xp, x, axes)

    def _symmetric(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        half = 2 ** (self.bits - 1)
        top = {"odd": half - 1, "signed": half, "even": half - 0.5}[self.levels]
        scaled, scale, largest = scale_to_top(xp, x, axes, top)
        if self.levels == "signed":  # the extreme element gets code -half, the scale its sign
            negative = xp.min(x, axis=axes, keepdims=True) == -largest
            sign = xp.where(negative, xp.ones_like(scale), -xp.ones_like(scale))
            scaled, scale = sign * scaled, sign * scale
        if self.rounding == "nearest":
            codes = xp.round(scaled)
        else:
            codes = truncate(xp, scaled, xp.abs(x) == largest)
        if self.levels != "odd":
            codes = xp.clip(codes, -half, half - 1)
        return codes, scale, None

    def _affine(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        bottom, levels = -(2 ** (self.bits - 1)), 2**self.bits - 1
        low = xp.min(x, axis=axes, keepdims=True)
        high = xp.max(x, axis=axes, keepdims=True)
        rounded = xp.round
        if self.rounding == "truncate":
            rounded = partial(truncate, xp, extreme=(x == low) | (x == high))
        if self.zero_point == "integer":  # zero must be a level, so the range includes it
            low, high = xp.clip(low, max=0.0), xp.clip(high, min=0.0)
        scale, divisor = usable_scale(xp, (high - low) / levels)
        if self.zero_point == "integer":
            zero = xp.round(-low / divisor) + bottom
            codes = rounded(x / divisor) + zero
            offset = -scale * zero
        else:
            codes = rounded((x - low) / divisor) + bottom
            offset = low - scale * bottom
        return xp.clip(codes, bottom, bottom + levels), scale, offset


@dataclass(frozen=True, kw_only=True)
class WeightOnly(Quantizer):
    """For the right operand; the left one is `Uniform`, to nearest, at `bits_a` (or `bits`).

    A subclass with bits of its own makes `bits` a field without `init`.

    Parameters
    ----------
    zero_point_a : of the left operand: None, 'integer' or 'float', as in `Uniform`

    Raises
    ------
    TypeError : bits that are no integer
    ValueError : bits out of range; another zero point or granularity

    Examples
    --------
    >>> from lrqmm.methods.hqq import HQQ
    >>> HQQ(bits=3, bits_a=8, granularity="vector").left
    Uniform()
    """

    ahead = True

    zero_point_a: str | None = one_of(None, *ZERO_POINTS)

    @property
    def left(self) -> Quantizer:
        bits = self.bits if self.bits_a is None else self.bits_a
        return Uniform(bits=bits, granularity=self.granularity, zero_point=self.zero_point_a)


def stored_codes(xp: ModuleType, codes: Array, dtype: Any) -> Array:
    """Float codes as integers, clipped first: beyond the limits a cast wraps round."""
    limits = xp.iinfo(dtype)
    # NumPy's, CuPy's and torch's own clip: one pass, and the layout stays as it is
    clip = codes.clip if hasattr(codes, "clip") else partial(xp.clip, codes)
    return xp.astype(clip(limits.min, limits.max), dtype)


def scale_to_top(
    xp: ModuleType, x: Array, axes: tuple[int, ...], top: float
) -> tuple[Array, Array, Array]:
    """x / scale with scale = max|x| / top over `axes`; the scale; the maximum."""
    largest = xp.max(xp.abs(x), axis=axes, keepdims=True)
    scale, divisor = usable_scale(xp, largest / top)
    return x / divisor, scale, largest


def truncate(xp: ModuleType, x: Array, extreme: Array) -> Array:
    """Towards zero, but to nearest at the extremes.

    max / (max / top) falls just below `top` in float32 for many rows; truncation would lose it.
    """
    return xp.where(extreme, xp.round(x), xp.trunc(x))


def group_length(granularity: str, k: int) -> int:
    """Columns that share a scale: N for 'group:N', else k. Raises ValueError for other words."""
    if granularity in ("vector", "tensor"):
        return max(k, 1)
    kind, _, length = str(granularity).partition(":")
    if kind == "group" and length.isdecimal() and int(length) > 0:
        return max(min(int(length), k), 1)
    raise ValueError(
        f"granularity is {granularity!r}; allowed: 'vector', 'tensor', 'group:N' with N at least 1"
    )


def shared_axes(granularity: str) -> tuple[int, ...]:
    """The axes of (rows, groups, group) that share a scale."""
    return (0, 1, 2) if granularity == "tensor" else (2,)


def clipped(X: Array, share: float, granularity: str) -> Array:
    """X (rows, k) cut at `share` times the largest magnitude of each vector, tensor or group."""
    xp = array_namespace(X)
    rows, k = X.shape
    x = blocks(xp, X, group_length(granularity, k))
    top = share * xp.max(xp.abs(x), axis=shared_axes(granularity), keepdims=True)
    return xp.reshape(xp.minimum(xp.maximum(x, -top), top), (rows, -1))[:, :k]


def usable_scale(xp: ModuleType, scale: Array) -> tuple[Array, Array]:
    """The scale (0 where it would be subnormal) and a divisor that is never 0."""
    usable = scale >= SMALLEST_SCALE
    return (
        xp.where(usable, scale, xp.zeros_like(scale)),
        xp.where(usable, scale, xp.full_like(scale, float("inf"))),
    )


def blocks(xp: ModuleType, X: Array, group: int) -> Array:
    """(rows, k) as (rows, groups, group); the last column is repeated to fill the last group."""
    rows, k = X.shape
    missing = -k % group
    if missing:
        X = xp.concat([X, xp.repeat(X[:, -1:], missing, axis=1)], axis=1)
    return xp.reshape(X, (rows, -1, group))
