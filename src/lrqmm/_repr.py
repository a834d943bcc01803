"""How public objects show themselves: as the call that makes them, defaults left out."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any


def call(name: str, *first: Any, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """A call in Python with these positional arguments and the keywords that are not defaults.

    Examples
    --------
    >>> call("get_method", "lrqmm", values={"bits": 4, "rank": 8}, defaults={"bits": 8, "rank": 8})
    "get_method('lrqmm', bits=4)"
    """
    arguments = [_short(value) for value in first]
    for key, value in values.items():
        default = defaults.get(key, MISSING)
        if value is not default and (type(value) is not type(default) or value != default):
            arguments.append(f"{key}={_short(value)}")
    return f"{name}({', '.join(arguments)})"


class Shown:
    """For dataclasses: their subclasses show themselves as calls too."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__repr__" not in vars(cls):  # else `dataclass` writes one, with the defaults
            cls.__repr__ = Shown.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        shown = [field for field in fields(self) if field.init and field.repr]  # type: ignore[arg-type]
        values = {field.name: getattr(self, field.name) for field in shown}
        defaults = {field.name: _default(field) for field in shown}
        return call(type(self).__name__, values=values, defaults=defaults)


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _short(value: Any) -> str:
    """Arrays and tables by shape and dtype."""
    if not hasattr(value, "shape"):
        return repr(value)
    kind = str(getattr(value, "dtype", type(value).__name__)).rsplit(".", 1)[-1]
    return f"<{' x '.join(str(size) for size in value.shape) or '()'} {kind}>"
