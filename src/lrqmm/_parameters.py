"""Parameters of methods and their parts: dataclass fields that say which values they allow.

bits: int = whole(8, 2, 8)
"""

from dataclasses import field, fields
from functools import cache, partial
from typing import Any

from lrqmm import _checks


def whole(default: int | None, low: int, high: int | None = None) -> Any:
    """A field for an integer of [low, high]; for None too where that is the default."""
    return _field(default, partial(_checks.integer, low=low, high=high))


def number(default: float, low: float, high: float) -> Any:
    """A field for a number of [low, high]."""
    return _field(default, partial(_checks.real, low=low, high=high))


def one_of(default: Any, *allowed: Any) -> Any:
    """A field for one of these values."""
    return _field(default, partial(_checks.choice, allowed=allowed))


def _field(default: Any, check: Any) -> Any:
    return field(default=default, metadata={"check": check, "optional": default is None})


class Checked:
    """For dataclasses of such fields. One that a subclass gives another default keeps its check.

    Raises
    ------
    TypeError, ValueError : a value that its field does not allow
    """

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for name, check, optional in _of(cls):
            value = getattr(self, name)
            if value is not None or not optional:
                check(name, value)


@cache
def _of(cls: type) -> list[tuple[str, Any, bool]]:
    """The nearest check of each field: the class's own, or that of a base."""
    found = {}
    for base in reversed(cls.__mro__):
        for it in fields(base) if "__dataclass_fields__" in vars(base) else ():
            if it.metadata:
                found[it.name] = it.name, it.metadata["check"], it.metadata["optional"]
    return list(found.values())
