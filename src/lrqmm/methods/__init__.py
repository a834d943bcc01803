"""One file per method: a module here defines `METHOD`, and its name is the method's name.

Adding a method is adding a file; nothing else lists them.
"""

from typing import Any

from lrqmm import _checks
from lrqmm import fused as fused  # its execution of compositions is there once it is loaded
from lrqmm._registry import Registry
from lrqmm.products.composition import Preset
from lrqmm.products.method import Recipe

METHODS: Registry[Recipe] = Registry(__name__, "METHOD")


def list_methods() -> list[str]:
    """Names of all methods, sorted.

    Examples
    --------
    >>> import lrqmm
    >>> [name for name in lrqmm.list_methods() if name.startswith("lrqmm")]
    ['lrqmm', 'lrqmm_aware', 'lrqmm_first']
    """
    return METHODS.names()


def preset(name: str) -> Recipe:
    """The preset of a method, or of parts joined by `+`; ValueError names the known ones."""
    return _composed(name) if "+" in name else METHODS.get(name)


def components() -> dict[str, dict[str, type]]:
    """Transforms, quantisers and compensators by name: that of the method which is `direct` but
    for this one part."""
    kinds: dict[str, dict[str, type]] = {f"{part}s": {} for part in Preset.parts}
    kinds["quantizers"]["uniform"] = Preset.quantizer
    for name in list_methods():
        method = preset(name)
        if isinstance(method, Preset) and len(method.changed) == 1:
            (kind,) = method.changed
            kinds[f"{kind}s"][name] = getattr(method, kind)
    return kinds


def list_components() -> dict[str, list[str]]:
    """Sorted names of the parts that a name such as 'hadamard+uniform+lrqmm' puts together.

    Examples
    --------
    >>> import lrqmm
    >>> parts = lrqmm.list_components()
    >>> sorted(parts)
    ['compensators', 'quantizers', 'transforms']
    >>> "hadamard" in parts["transforms"], "lrqmm" in parts["compensators"]
    (True, True)
    """
    return {kind: sorted(names) for kind, names in components().items()}


def sources(name: str) -> list[str]:
    """The methods whose files a name stands for; `uniform` is what `direct` is made of."""
    return ["direct" if part == "uniform" else part for part in name.split("+")]


def _composed(name: str) -> Preset:
    """A preset nobody wrote a file for: at most one part of each kind, in any order."""
    kinds = components()
    chosen: dict[str, type] = {}
    for part in name.split("+"):
        _checks.choice(f"part of {name!r}", part, sorted({n for k in kinds.values() for n in k}))
        kind = next(kind for kind, names in kinds.items() if part in names)
        if kind in chosen:
            raise ValueError(f"{name!r} has two {kind}; allowed: one")
        chosen[kind] = kinds[kind][part]
    cites = dict.fromkeys(key for part in sources(name) for key in preset(part).cites)
    parts: dict[str, Any] = {kind.removesuffix("s"): part for kind, part in chosen.items()}
    return Preset(name, cites=tuple(cites), **parts)
