"""What every method is, from the methods' own files.

`python -m lrqmm.describe > docs/methods.md` writes the page.
"""

import importlib
import re
from dataclasses import dataclass, fields
from typing import Any

from lrqmm import methods
from lrqmm.products.composition import Preset
from lrqmm.products.quantize import Uniform

TITLES = {"transform": "transform", "quantizer": "quantiser", "compensator": "compensator"}
WHOLE = "whole product"
UNIFORM = "quantiser (`uniform`)"
TITLE = """# Methods

Written by `python -m lrqmm.describe > docs/methods.md` from the methods' own files, which hold the
formulas.

* Parts compose by name, one of each kind: `hadamard+octav+lrqmm`. A transform or compensator alone
  goes with the quantiser of `direct`, and takes its `bits` to `zero_point_a` too.
* A sample of left operands: `calibration=`; without one it is the left operand itself.
* Weights ahead of time: made for a right operand that is known before, and worked on once.
* Both operands at every call: what it adds for the right operand depends on the left one.
* Cites: keys in [references.bib](references.bib); `lrqmm_bench` is this project.

"""


@dataclass(frozen=True)
class Description:
    """One method.

    Attributes
    ----------
    name : of the method, or of parts joined by `+`
    part : which of transform, quantiser and compensator it brings; 'whole product' for others
    needs : what it needs besides its operands, or asks of them
    parameters : with their defaults
    about : the first sentence of its file; of composed methods, of each part's
    cites : keys of its sources in docs/references.bib
    """

    name: str
    part: str
    needs: str
    parameters: dict[str, Any]
    about: str
    cites: tuple[str, ...]


def describe(name: str) -> Description:
    """The method of this name; ValueError where there is none."""
    preset = methods.preset(name)
    sentences = " ".join(_first_sentence(source) for source in methods.sources(name))
    return Description(name, _part(preset), preset.needs, preset.defaults, sentences, preset.cites)


def table() -> str:
    """All methods as a Markdown table, one line per method."""
    lines = ["method | part | needs | parameters | what it does | cites", " | ".join(["---"] * 6)]
    for name in methods.list_methods():
        it = describe(name)
        plain_quantiser = "quantiser" not in it.part and it.part != WHOLE
        omitted = {field.name for field in fields(Uniform)} if plain_quantiser else ()
        parameters = ", ".join(
            f"`{key}={value!r}`" for key, value in it.parameters.items() if key not in omitted
        )
        cells = f"`{name}`", it.part, it.needs, parameters, it.about, ", ".join(it.cites)
        lines.append(" | ".join(cell.replace("|", r"\|") for cell in cells))
    return "".join(f"| {line} |\n" for line in lines)


def _part(preset: Any) -> str:
    if not isinstance(preset, Preset):
        return WHOLE
    return ", ".join(TITLES[kind] for kind in TITLES if kind in preset.changed) or UNIFORM


def _first_sentence(name: str) -> str:
    doc = importlib.import_module(f"{methods.__name__}.{name}").__doc__ or ""
    sentence = re.match(r".+?\.(?=\s|$)", doc, re.DOTALL)
    return " ".join((sentence[0] if sentence else doc).split())


if __name__ == "__main__":
    print(TITLE + table(), end="")
