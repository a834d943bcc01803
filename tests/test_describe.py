"""The list of methods: what each needs, and where it comes from."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from oracle import OPTIONAL

import lrqmm
from lrqmm.describe import TITLE, describe, table

DOCS = Path(__file__).parents[1] / "docs"
METHODS = {name: describe(name) for name in lrqmm.list_methods()}
SAMPLE, WEIGHTS, BOTH = "a sample of left operands", "weights ahead of time", "both operands"


def needing(words):
    return [name for name, method in METHODS.items() if words in method.needs]


def test_every_method_cites_a_source_and_every_source_is_cited():
    assert [name for name, method in METHODS.items() if not method.cites] == []
    keys = re.findall(
        r"^@\w+\{(\w+),$", (DOCS / "references.bib").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(keys) == len(set(keys))
    assert set(keys) == {key for method in METHODS.values() for key in method.cites}


def test_arxiv_numbers_in_a_file_are_those_of_its_sources():
    entries = (DOCS / "references.bib").read_text(encoding="utf-8").split("\n@")
    number = re.compile(r"\b\d{4}\.\d{5}\b")
    for name, method in METHODS.items():
        said = number.findall(importlib.import_module(f"lrqmm.methods.{name}").__doc__)
        cited = [entry for entry in entries for key in method.cites if f"{{{key}," in entry]
        assert set(said) <= set(number.findall("".join(cited))), name


def test_the_page_is_current():
    page = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert page == TITLE + table(), "python -m lrqmm.describe > docs/methods.md"
    rows = [line for line in table().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == lrqmm.list_methods()
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}


def test_needs_are_said():
    assert all(method.needs and method.about.endswith(".") for method in METHODS.values())
    calibrated = [name for name in METHODS if lrqmm.get_method(name).calibrated]
    assert needing(SAMPLE) == calibrated
    assert set(calibrated) < set(needing(WEIGHTS))
    assert "lrqmm_aware" in needing(BOTH)


ONE_SCALE = ("onnxruntime", "torch_int8")
"""Methods with one scale for all of A."""


@pytest.mark.parametrize("name", sorted({*needing(WEIGHTS)} - {*ONE_SCALE, *OPTIONAL}))
def test_with_weights_ahead_of_time_a_row_of_a_does_not_depend_on_the_others(name):
    rng = np.random.default_rng(0)
    A, B = (rng.standard_normal(shape, np.float32) for shape in ((24, 40), (40, 32)))
    method = lrqmm.get_method(name)
    prepared = method.prepare(B, **({"calibration": A} if method.calibrated else {}))
    alone = method.matmul(A[:1], prepared)
    np.testing.assert_allclose(method.matmul(A, prepared)[:1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OPTIONAL])
def test_only_those_that_need_torch_refuse_numpy(name):
    A, B = np.random.default_rng(0).random((2, 16, 16), dtype=np.float32)
    if "torch" in METHODS[name].needs:
        with pytest.raises(lrqmm.Unsupported):
            lrqmm.matmul(A, B, method=name)
    else:
        assert np.isfinite(lrqmm.matmul(A, B, method=name)).all()


def test_parts_are_described():
    assert METHODS["svdquant"].part == "transform, compensator"
    assert METHODS["octav"].part == "quantiser"
    assert METHODS["ozaki"].part == "whole product"
    assert METHODS["ozaki"].parameters == {"slices": 2}


def test_a_composed_method_is_what_its_parts_are():
    found = describe("hadamard+gptq+lrqmm")
    parts = [METHODS[part] for part in found.name.split("+")]
    assert found.part == "transform, quantiser, compensator"
    assert found.needs == METHODS["gptq"].needs
    assert found.cites == tuple(key for part in parts for key in part.cites)
    assert found.about == " ".join(part.about for part in parts)
    assert describe("uniform+lrqmm").cites == METHODS["lrqmm"].cites  # each source once
    with pytest.raises(ValueError, match="did you mean 'octav'"):
        describe("octaf+lrqmm")
