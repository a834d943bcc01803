"""Advice keeps what it promises, and says so where nothing does."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from oracle import OPTIONAL, PEERS, distance, product

import lrqmm
from lrqmm import advice
from lrqmm.bench.sources.distributions import sample


def matrices(distribution="uniform01", shape=(70, 90, 50), seed=0):
    return [torch.from_numpy(X) for X in sample(distribution, *shape, seed=seed)]


@pytest.mark.parametrize("goal", advice.PRICES)
@pytest.mark.parametrize("prepared", [False, True])
def test_the_best_keeps_the_error_at_the_least_price(goal, prepared):
    A, B = matrices()
    found = lrqmm.advise(A, B, max_error=0.01, goal=goal, prepared=prepared, seconds=0.5)
    assert found.found
    best = found.best
    C = lrqmm.matmul(A, B, best["method"], **best["parameters"])
    error = distance(C.numpy(), product(A.numpy(), B.numpy()))
    assert error <= 0.01
    assert np.isclose(error, best["error"], rtol=1e-2)
    eligible = found.table[found.table["keeps"] & found.table["whole"]]
    assert best[advice.PRICES[goal]] == eligible[advice.PRICES[goal]].min()
    if goal != "time":  # a price that no clock has a say in: of all that keep the error
        kept = found.table[found.table["error"] <= 0.01]
        assert best[advice.PRICES[goal]] == kept[advice.PRICES[goal]].min()


def test_every_candidate_is_measured_or_left_out_with_a_reason():
    A, B = matrices(shape=(20, 30, 10))
    found = lrqmm.advise(A, B, max_error=0.1, seconds=0.1)
    assert len(found.table) + len(found.left_out) == len(list(advice.candidates(A)))
    assert any("rank is 64" in why for why in found.left_out.values())
    exact = product(A.numpy(), B.numpy())
    for row in found.table.itertuples():
        C = lrqmm.matmul(A, B, row.method, **row.parameters).numpy()
        assert np.isclose(distance(C, exact), row.error, rtol=1e-2, atol=1e-7), row


def test_signed_levels_are_tried_at_few_bits():
    A, B = matrices("normal", (128, 256, 128))
    exact = product(A.numpy(), B.numpy())
    odd, signed = (
        distance(lrqmm.matmul(A, B, "direct", bits=4, levels=kind).numpy(), exact)
        for kind in ("odd", "signed")
    )
    assert signed < 0.95 * odd
    found = lrqmm.advise(A, B, max_error=0.98 * odd, goal="bits", seconds=0.1)
    assert found.best["parameters"]["levels"] == "signed"
    assert "levels='signed'" in found.python
    assert {p.get("bits", 8) for _, p in advice.candidates(A) if "levels" in p} == {4}


def test_products_of_other_libraries_are_tried_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(advice, "BITS", (8,))
    monkeypatch.setattr(advice, "RANKS", (4,))
    A, B = matrices(shape=(20, 30, 20))
    assert {name for name, _ in advice.candidates(A)}.isdisjoint(PEERS)
    found = lrqmm.advise(A, B, max_error=0.1, seconds=0.1, prepared=True, peers=True)
    tried = {it["method"] for it in found.candidates}
    assert {"torch_int8", "torch_qlinear", "torch_int4", "direct"} <= tried
    for name in set(OPTIONAL) & set(advice.PEERS) - tried:
        reasons = [why for it, why in found.left_out.items() if it.split()[0] == name]
        assert all("pip install 'lrqmm[peers]'" in why or "processor" in why for why in reasons)
        assert len(reasons) == len(advice.PEERS[name])


def test_what_the_sample_flatters_is_found_out(monkeypatch):
    """On eight rows rank 4 wins half of everything; on all of them next to nothing."""
    monkeypatch.setattr(advice, "SAMPLE", 8)
    A, B = matrices("normal", (200, 300, 150))
    whole = {
        (name, rank): distance(
            lrqmm.matmul(A, B, name, bits=4, rank=rank).numpy(), product(A.numpy(), B.numpy())
        )
        for name in ("lrqmm", "lrqmm_aware")
        for rank in advice.RANKS
    }
    wanted = 0.9 * min(whole.values())
    found = lrqmm.advise(A, B, max_error=wanted, goal="bits", seconds=0.1)
    taken = found.best
    assert taken["whole"]
    C = lrqmm.matmul(A, B, taken["method"], **taken["parameters"]).numpy()
    assert distance(C, product(A.numpy(), B.numpy())) <= 1.05 * wanted  # over sampled entries


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats(dtype):
    A, B = (X.to(dtype) for X in matrices())
    found = lrqmm.advise(A, B, max_error=0.05, goal="bits", seconds=0.1)
    C = lrqmm.matmul(A, B, found.best["method"], **found.best["parameters"])
    assert C.dtype == dtype
    error = distance(C.float().numpy(), product(A.float().numpy(), B.float().numpy()))
    assert np.isclose(error, found.best["error"], rtol=1e-2)
    assert error <= 0.05


def test_nothing_is_that_exact():
    A, B = matrices()
    found = lrqmm.advise(A, B, max_error=1e-12)
    assert not found.found
    assert "no candidate keeps an error of 1e-12" in repr(found)
    with pytest.raises(ValueError, match="max_error is 1e-12; allowed for these matrices: at"):
        _ = found.python


def test_the_lines_to_write_run():
    A, B = matrices()
    found = lrqmm.advise(A, B, max_error=0.01, goal="bits", seconds=0.1)
    names = {"A": A, "B": B, "lrqmm": lrqmm}
    exec(found.python, names)
    assert names["C"].shape == (70, 50)
    assert found.config.startswith(f"methods: [{found.best['method']}]\nsettings: {{bits: ")
    assert repr(found) == f"Advice({found.python})"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"max_error": 0.0}, "max_error is 0.0; allowed: a number above 0"),
        ({"max_error": float("nan")}, "max_error is nan"),
        ({"max_error": 0.1, "goal": "speed"}, "goal is 'speed'"),
    ],
)
def test_wrong_questions(how, words):
    with pytest.raises(ValueError, match=words):
        lrqmm.advise(*matrices(), **how)


def test_wrong_matrices():
    A, B = matrices()
    with pytest.raises(ValueError, match="3 and 2 dimensions; allowed: 2"):
        lrqmm.advise(A[None], B, max_error=0.1)
    with pytest.raises(ValueError, match="A holds nan"):
        lrqmm.advise(A * float("nan"), B, max_error=0.1)


def test_company_is_said(monkeypatch):
    @contextmanager
    def company():
        yield {"loaded": True}

    monkeypatch.setattr(advice, "watch_load", company)
    assert lrqmm.advise(*matrices(), max_error=0.1, seconds=0.1).loaded
