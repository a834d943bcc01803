"""One object per file: the modules of a package each define one, and nothing lists them."""

import importlib
import pkgutil
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from lrqmm import _checks

T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """The objects that the modules of a package define, by the name of their module.

    Modules whose names begin with an underscore are shared parts, and define none.

    Attributes
    ----------
    package : dotted name of the package; its `__path__` is read at each call
    attribute : what each module calls its object, such as 'METHOD'; the object has a `name`
    """

    package: str
    attribute: str

    def names(self) -> list[str]:
        """Names of all objects, sorted; nothing is imported."""
        return list(_names(tuple(sys.modules[self.package].__path__)))

    def get(self, name: str) -> T:
        """The object of this name; ValueError names the known ones.

        Raises
        ------
        ValueError : there is no such file, or the object that it defines has another name
        """
        _checks.choice(self.attribute.lower(), name, self.names())
        module = importlib.import_module(f"{self.package}.{name}")
        entry: Any = getattr(module, self.attribute, None)
        called = getattr(entry, "name", None)
        if called != name:
            file = "/".join([*self.package.split(".")[1:], f"{name}.py"])
            raise ValueError(
                f"{file} defines {self.attribute} named {called!r}; allowed: {name!r}"
                if called
                else f"{file} defines no {self.attribute}; allowed: one named {name!r}"
            )
        return entry  # type: ignore[no-any-return]


@cache
def _names(folders: tuple[str, ...]) -> tuple[str, ...]:
    modules = (info.name for info in pkgutil.iter_modules(folders))
    return tuple(sorted(name for name in modules if not name.startswith("_")))
