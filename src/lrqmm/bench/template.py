"""Begin a method: `lrqmm new-method NAME` writes its file and its test."""

import keyword
import re
from pathlib import Path
from string import Template

from lrqmm import methods

METHOD = '''"""$title: what it does, in a sentence.

    C ≈ Ã B̃ + Ã R_B    the formula; this one adds what the codes of B left out

Cost: a float product of the operands' size.
Source: where it comes from.
"""

from dataclasses import dataclass
from typing import Any

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.parts import Compensator, Operand


@dataclass(frozen=True, kw_only=True)
class $class(Compensator):
    """One line about it; its parameters are fields here, each with a default."""

    def correct(self, A: Operand, B: Operand, prepared: Any) -> Array:
        return A.approx @ B.residual

    def cost(self, m: int, k: int, n: int) -> Cost:
        return Cost(float_operations=2 * m * k * n, bytes=8 * k * n, operand_bits=32 * k * n)


METHOD = Preset("$name", compensator=$class, cites=("lrqmm_bench",), usual=True)
'''

TEST = '''"""$title: nearer to the product than direct. A slow, obvious oracle belongs here too."""

import numpy as np
import pytest

import lrqmm


@pytest.mark.parametrize("shape", [(40, 60, 30), (33, 17, 65)])
def test_$name(shape):
    m, k, n = shape
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    C, direct = (lrqmm.matmul(A, B, method, bits=4) for method in ("$name", "direct"))
    assert np.linalg.norm(C - A @ B) < np.linalg.norm(direct - A @ B)
'''


def new_method(name: str, root: Path | None = None) -> list[Path]:
    """Write a method's file, and its test where the checkout at `root` (None: that of the library
    in use) has tests; the files. ValueError for a name that cannot be one of a method, or is
    taken."""
    root = Path(methods.__file__).parents[3] if root is None else root
    folder = root / "src/lrqmm/methods"
    if not folder.is_dir():
        raise ValueError(f"{folder} is not there; allowed: in a checkout of the project")
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"name is {name!r}; allowed: lower case, digits and underscores")
    wanted = {folder / f"{name}.py": METHOD}
    if (root / "tests").is_dir():
        wanted[root / f"tests/test_{name}.py"] = TEST
    words = {
        "class": "".join(word.capitalize() for word in name.split("_")),
        "title": name.replace("_", " ").capitalize(),
        "name": name,
    }
    for path in wanted:
        if path.exists():
            raise ValueError(f"{path} is there already; allowed: a name that is not taken")
    for path, text in wanted.items():
        path.write_text(Template(text).substitute(words))
    return list(wanted)
