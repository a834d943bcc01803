"""One file a method: a module here defines `METHOD`, and its name is the method's name.

Adding a method is adding a file; nothing else lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from lrqmm import _checks
from lrqmm.composition import Preset


def list_methods() -> list[str]:
    """Names of all methods, sorted."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name[0] != "_")


def preset(name: str) -> Any:
    """The preset of a named method; ValueError names the known ones."""
    _checks.choice("method", name, list_methods())
    found = importlib.import_module(f"{__name__}.{name}").METHOD
    if found.name != name:
        raise ValueError(
            f"methods/{name}.py defines METHOD named {found.name!r}; allowed: {name!r}"
        )
    return found


def components() -> dict[str, dict[str, type]]:
    """Quantisers and compensators by name, gathered from the methods that use them."""
    found: dict[str, dict[str, type]] = {"quantizers": {}, "compensators": {}}
    for name in list_methods():
        method = preset(name)
        if isinstance(method, Preset):
            found["quantizers"].setdefault(method.quantizer.name, method.quantizer)
            if method.compensator is not Preset.compensator:
                found["compensators"][name] = method.compensator
    found["compensators"]["none"] = Preset.compensator
    return found


def list_components() -> dict[str, list[str]]:
    """Sorted names of the parts that `get_method('composed', ...)` puts together."""
    return {kind: sorted(names) for kind, names in components().items()}


def composed(quantizer: str = "uniform", compensator: str = "none") -> Preset:
    """A preset nobody wrote a file for."""
    parts = components()
    _checks.choice("quantizer", quantizer, sorted(parts["quantizers"]))
    _checks.choice("compensator", compensator, sorted(parts["compensators"]))
    return Preset("composed", parts["quantizers"][quantizer], parts["compensators"][compensator])
