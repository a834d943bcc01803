"""Examples in docstrings run, and every public name has one and says what it takes and raises."""

import dataclasses
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
HOLDING = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in (SOURCE / "lrqmm").rglob("*.py")
    if re.search(r"^\s*>>> ", path.read_text(), re.MULTILINE)
)
"""Modules that hold an example."""

FACES = (
    "lrqmm",
    "lrqmm.products.apriori",
    "lrqmm.nn",
    "lrqmm.products.packing",
    "lrqmm.products.quantize",
    "lrqmm.products.quantized",
)
"""Modules all of whose names in `__all__` are public."""
PUBLIC = [
    *(f"{face}.{name}" for face in FACES for name in importlib.import_module(face).__all__),
    "lrqmm.advice.Advice",
    "lrqmm.bench.compare.compare",
    "lrqmm.nn.ranks.choose_ranks",
    "lrqmm.run.read.Run",
    "lrqmm.run.read.read_run",
]
PUBLIC.remove("lrqmm.apriori")  # a module, and a face itself
NEVER_RAISE = ("list_components", "list_methods", "integer_route", "packed_length")
SOURCED = (
    "lrqmm.ToleranceNotReached",
    "lrqmm.products.apriori.predicted_error",
    "lrqmm.nn.ranks.choose_ranks",
    *(f"lrqmm.products.packing.{name}" for name in ("Packed", "pack", "unpack")),
    *(f"lrqmm.products.quantize.{name}" for name in ("Quantizer", "Uniform", "WeightOnly")),
)
"""Names that implement something, and say whose, themselves or in their module; methods are in
`test_methods.py`."""


@pytest.mark.parametrize("name", HOLDING)
def test_examples(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


def public(name):
    module, _, own = name.rpartition(".")
    return getattr(importlib.import_module(module), own)


def sections(it):
    """The parts of a docstring in numpydoc form, by title."""
    titles = r"^(Parameters|Attributes|Returns|Raises|Notes|Examples)\n-+$"
    _, *parts = re.split(titles, inspect.getdoc(it), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def given(it):
    """What it is called with; of a dataclass its own fields."""
    if dataclasses.is_dataclass(it):
        bases = filter(dataclasses.is_dataclass, it.__mro__[1:])
        own, *inherited = ({field.name for field in dataclasses.fields(at)} for at in (it, *bases))
        return own.difference(*inherited)
    if inspect.isclass(it):
        return set()
    return set(inspect.signature(it).parameters)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_says_what_it_takes_and_shows_it(name):
    it = public(name)
    found = sections(it)
    assert ">>> " in found["Examples"]
    entries = found.get("Parameters", "") + found.get("Attributes", "")
    named = re.findall(r"^([\w*, ]+) : \S", entries, re.MULTILINE)
    named = {word.strip("* ") for words in named for word in words.split(",")}
    assert given(it) <= named
    if not inspect.isclass(it) and name.rpartition(".")[2] not in NEVER_RAISE:
        assert re.search(r"^(\w+, )*(\w*Error|Unsupported) : \S", found["Raises"], re.MULTILINE)


@pytest.mark.parametrize("name", SOURCED)
def test_what_is_implemented_has_a_source(name):
    it = public(name)
    said = inspect.getdoc(it) + importlib.import_module(it.__module__).__doc__
    assert re.search(r"\bSource: \S", said)
