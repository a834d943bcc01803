"""An operand of the fused path in int8; `algorithm` has the formulas."""

from dataclasses import dataclass, field
from typing import Any

from lrqmm._checks import Array

UNIT = {"nearest": 1 / 254, "truncate": 1 / 127, "signed": 1 / 127}
"""What a residual digit counts in scales: a truncated or cut residual is twice as wide."""


@dataclass
class Coded:
    """An operand (rows x k) in int8, and the low-rank part of its residual once it is known.

    Attributes
    ----------
    room : (rows + at least r, k) int8, the codes q over the thin codes v
    digits : (rows, k) int8 residual digits, or None
    scale : (rows,) float32; a residual is unit * scale * digit
    offset : o (rows,) float32, or None
    sums : q 1 (rows,) float32, where the other operand has an offset
    basis, thin_scale : Q (rows, r) float32 and a (r,) float32, or None
    packed : the codes in the layout of the kernels that multiply by them, or None
    operand : this operand as compiled code takes it, or None
    """

    room: Array
    digits: Array
    scale: Array
    unit: float
    offset: Array = None
    sums: Array = None
    basis: Array = None
    thin_scale: Array = None
    packed: Any = None
    operand: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "operand": None}  # which holds addresses

    @property
    def rows(self) -> int:
        return int(self.scale.shape[0])

    @property
    def rank(self) -> int:
        return 0 if self.thin_scale is None else int(self.thin_scale.shape[0])

    @property
    def codes(self) -> Array:
        """q (rows, k)."""
        return self.room[: self.rows, :]

    @property
    def thin(self) -> Array:
        """v (r, k)."""
        return self.room[self.rows : self.rows + self.rank, :]

    @property
    def stack(self) -> Array:
        """[q; v] (rows + r, k)."""
        return self.room[: self.rows + self.rank, :]


@dataclass(frozen=True)
class PreparedGroups:
    """B (k, n) packed, with its scales and the factors of its correction.

    Attributes
    ----------
    panels, scales : int8 and float32, flat, as `groups.cpp` lays them out
    U, V : float32, flat, packed factors (k, q) and (n, q): B's residual is about U Vᵀ
    rank : q, 0 for no correction
    half : whether two codes share a byte
    plans : heights of left operands that the door has seen
    """

    panels: Array
    scales: Array
    U: Array
    V: Array
    k: int
    n: int
    rank: int
    group: int
    half: bool
    plans: dict[int, Any] = field(default_factory=dict)

    def work(self, m: int) -> int:
        """Bytes of work space for a left operand of m rows."""
        return m * -(-self.k // self.group) * self.group
