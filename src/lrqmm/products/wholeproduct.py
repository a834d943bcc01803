"""Methods that are no composition of transform, quantiser and compensator: classes of their own.

One is a frozen dataclass whose fields, but for `name`, `cites` and `usual`, are its parameters; it
is its own preset, with the face that `composition.Preset` and `composition.Composition` share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm.products.composition import Cost, needed


@dataclass(frozen=True)
class WholeProduct(ABC):
    """A product by a recipe of its own.

    Attributes
    ----------
    name : of the method
    cites : keys of its sources in docs/references.bib
    usual : whether experiments that name no methods measure it
    """

    calibrated: ClassVar[bool] = False
    """Whether `prepare` takes left operands, (s, k), as `calibration`."""
    ahead: ClassVar[bool] = False
    """Whether it is made for weights, right operands that are known ahead of time."""
    together: ClassVar[bool] = False
    """Whether what it does to the right operand depends on the left one, at every call."""

    name: str
    cites: tuple[str, ...]
    usual: bool = True

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters and their values."""
        return {own.name: getattr(self, own.name) for own in self._own}

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameters and their defaults."""
        return {own.name: own.default for own in self._own}

    @property
    def _own(self) -> list[Any]:
        return [own for own in fields(self) if own.name not in ("name", "cites", "usual")]

    @property
    def classes(self) -> tuple[type, ...]:
        """The classes whose code decides what the method computes."""
        return (type(self),)

    @property
    def needs(self) -> str:
        """What it needs beside its operands, in words."""
        return needed((type(self),))

    def build(self, **params: Any) -> Self:
        """With these parameters; unknown ones raise TypeError."""
        _checks.known(f"method {self.name!r} has no parameter", params, self.defaults)
        return replace(self, **params)

    def check_shape(self, m: int, k: int, n: int) -> None:
        """Raise ValueError where a parameter does not fit an m x k by k x n product."""
        _checks.rank(getattr(self, "rank", None), m, k, n)

    @abstractmethod
    def prepare(self, B: Array, *, scratch: bool = False) -> Any:
        """What depends on B (k x n) alone and, where it is calibrated, on left operands."""

    @abstractmethod
    def matmul(self, A: Array, prepared: Any, out: Array | None = None) -> Array:
        """The product, (m x n); `out` may be used for it, or not."""

    @abstractmethod
    def integer_route(self, like: Array) -> str:
        """How integer products of arrays like this one are computed, in words."""

    @abstractmethod
    def cost(self, m: int, k: int, n: int) -> Cost:
        """Modelled operations and bytes, B not prepared."""
