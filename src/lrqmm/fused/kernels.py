"""What the fused algorithm asks of a device: the module of its kernels, `cpu` or `cuda`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lrqmm._checks import Array
from lrqmm.fused.coded import Coded

Buffers = dict[str, Any]
"""Work space by name: flat buffers that live from call to call."""

Update = Callable[[Array, Array, Array], tuple[Array, Array]]
"""The int32 products q wᵀ, p vᵀ and v wᵀ to the thin factors of the correction."""


@dataclass(frozen=True)
class Plan:
    """What a product of any operands asks for.

    Attributes
    ----------
    bits, rounding : of the left operand's codes
    rank : of the left operand's correction, 0 for none
    aware : whether bases are found in the product rather than in the residual
    options : the low-rank compensator, or None
    """

    bits: int
    rounding: str
    rank: int
    aware: bool
    options: Any


class Kernels(Protocol):
    """Passes over big matrices, and steps on thin ones; arrays are torch tensors.

    Attributes
    ----------
    PASSES : what the passes are written in
    PRODUCTS : how integer products are computed; '' for as the library does
    OFFSETS : whether operands may have offsets: zero points, means of residuals
    """

    @property
    def __name__(self) -> str: ...
    @property
    def PASSES(self) -> str: ...
    @property
    def PRODUCTS(self) -> str: ...
    @property
    def OFFSETS(self) -> bool: ...

    def quantize(
        self,
        X: Array,
        bits: int,
        rounding: str,
        *,
        rank: int,
        residual: bool,
        zero_point: bool = False,
        space: Buffers | None = None,
    ) -> Coded:
        """X (rows, k) float32 as int8 codes, with room for `rank` thin rows and digits of its
        residual."""

    def pack(self, right: Coded, space: Buffers | None) -> None:
        """Put the codes of a right operand into the layout that products want, where that is
        another one."""

    def int_product(self, a: Array, b: Array) -> Array:
        """a (m, k) int8, b (n, k) int8 -> a bᵀ (m, n) int32, exact."""

    def thin_product(self, t: Array, r: Array) -> Array:
        """t (w, rows) int8, r (rows, k) int8 -> t r (w, k) int32, exact."""

    def signs(self, rows: int, width: int, sketch: str, seed: tuple[int, ...]) -> Array:
        """Ωᵀ (width, rows) int8."""

    def two_digits(self, X: Array, weight: Array | None) -> tuple[Array, Array]:
        """Thin X (n, w) in two digits (2w, n):
        weight_i X_il = scale_l (first_li + second_li / 254)."""

    def one_digit(self, X: Array, codes: Array) -> Array:
        """Thin X (n, w) rounded into int8 `codes` (w, n); returns the scales (w,)."""

    def merge(self, sums: Array, f: Array | None, g: Array) -> Array:
        """f_i g_l (sums_il + sums_i(l+w) / 254) for the sums (n, 2w) of two digits; (n, w)."""

    def orthonormal(self, Y: Array) -> Array:
        """Orthonormal basis of a thin matrix's columns."""

    def compensate(self, right: Coded, rank: int, options: Any, side: int) -> bool:
        """Put the low-rank part of a right operand into it by one call; False where none does."""

    def whole(
        self, A: Array, right: Coded, plan: Plan, out: Array | None, space: Buffers
    ) -> Array | None:
        """The whole product by one call; None where there is none for it."""

    def multiply(
        self, left: Coded, right: Coded, update: Update, out: Array | None, space: Buffers
    ) -> Array:
        """C = diag(s) q pᵀ diag(t) + X Yᵀ, (m, n) float32, with `update` giving X and Y."""
