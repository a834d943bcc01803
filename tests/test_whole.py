"""The whole product in one compiled call, and the short way to it, against the steps one by one."""

import copy
import pickle
import threading

import numpy as np
import psutil
import pytest
import torch

import lrqmm
from lrqmm.fused import LARGEST_K, cpu, gemm, quick
from lrqmm.products import phases

pytestmark = pytest.mark.skipif(not gemm.usable(), reason="no compiled products here")

METHODS = {
    "direct": {},
    "direct at 4 bits": {"bits": 4, "levels": "signed"},
    "lrqmm": {"rank": 5},
    "lrqmm of rank one": {"rank": 1, "terms": "first", "rounding": "truncate"},
    "lrqmm of weights": {"rank": 7, "sides": "b"},
    "lrqmm of activations": {"rank": 7, "sides": "a", "power_iterations": 2},
    "lrqmm_aware": {"rank": 5, "power_iterations": 0},
    "lrqmm_aware again": {"rank": 3, "power_iterations": 1, "bits": 4, "levels": "signed"},
    "lrqmm_aware of weights": {"rank": 4, "sides": "b"},
}


def method_of(name):
    return lrqmm.get_method(name.split()[0], execution="fused", **METHODS[name])


def operands(seed, kind="normal"):
    rng = np.random.default_rng(seed)
    m, k, n = (int(x) for x in rng.integers(8, 220, 3))
    A, B = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    if kind == "one-sided":
        A, B = np.abs(A), np.abs(B)
    return torch.from_numpy(A), torch.from_numpy(B)


def stepwise(method, A, B, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "whole", lambda *arguments: None)
        patch.setattr(cpu, "compensate", lambda *arguments: False)
        return method.matmul(A, method.prepare(B))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seed", range(12))
def test_one_call_gives_what_its_steps_give(name, seed, monkeypatch):
    A, B = operands(seed, ("normal", "one-sided")[seed % 2])
    if seed % 3 == 0:
        B = B.T.contiguous().T
    if seed % 4 == 0:
        A = A.T.contiguous().T
    method = method_of(name)
    ran = []
    whole = cpu.whole
    monkeypatch.setattr(cpu, "whole", lambda *a: ran.append(whole(*a)) or ran[-1])
    C = method.matmul(A, method.prepare(B))
    assert ran[0] is not None
    expected = stepwise(method, A, B, monkeypatch)
    true = A.double() @ B.double()
    # a sketch of one product is rounded to digits twice, so directions may turn a little
    assert (C - expected).norm() < 2e-3 * true.norm()
    error, usual = ((X.double() - true).norm() for X in (C, expected))
    assert error < 1.05 * usual + 1e-6 * true.norm()


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("name", ["lrqmm", "lrqmm_aware"])
def test_a_basis_that_is_too_ill_conditioned_goes_step_by_step(name, weights):
    rng = torch.Generator().manual_seed(0)
    A = torch.randn(60, 1, generator=rng) @ torch.randn(1, 80, generator=rng)
    A[:, 1:] = 0  # residuals of rank one, whatever the sketch
    B = torch.randn(80, 50, generator=rng)
    if weights:
        A, B = torch.randn(30, 60, generator=rng), A
    method = lrqmm.get_method(name, execution="fused", rank=6)
    C = method.matmul(A, method.prepare(B))
    assert (C - A @ B).norm() < 0.02 * (A @ B).norm()


@pytest.mark.parametrize("name", METHODS)
def test_the_short_way_gives_the_same_bits(name):
    A, B = operands(3)
    method = method_of(name)
    prepared = method.prepare(B)
    first = method.matmul(A, prepared)
    assert method._quick(A, prepared, None, True) is not None
    out = torch.full_like(first, torch.nan)
    version = out._version
    assert method.matmul(A, prepared, out=out) is out
    assert out._version > version
    assert torch.equal(method.matmul(A, prepared), first)
    assert torch.equal(out, first)
    left, right = A.numpy(), B.numpy()
    state = method.prepare(right)
    by_numpy = [method.matmul(left, state) for _ in range(2)]
    assert all(type(C) is np.ndarray and np.array_equal(C, first.numpy()) for C in by_numpy)


LEFT = {
    "rows of a wider matrix": lambda A: torch.cat([A, A], 1)[:, : A.shape[1]],
    "columns in memory": lambda A: A.T.contiguous().T,
    "one row for all": lambda A: A[:1].expand(A.shape),
    "every other column": lambda A: A.repeat_interleave(2, 1)[:, ::2],
    "a negated view": lambda A: torch._neg_view(A),
    "with a gradient": lambda A: A.clone().requires_grad_(),
    "zeros without memory": lambda A: torch._efficientzerotensor(A.shape),
    "in double": lambda A: A.double(),
    "in bfloat16": lambda A: A.bfloat16(),
    "far from one": lambda A: A * 2.0**90,
    "all zero": lambda A: A * 0,
    "a parameter": lambda A: torch.nn.Parameter(A),
    "a batch": lambda A: A[None],
}


@pytest.mark.parametrize("kind", LEFT)
def test_whatever_comes_second_gets_the_doors_answer(kind):
    A, B = operands(5)
    method = method_of("lrqmm")
    fresh, seen = method.prepare(B), method.prepare(B)
    X = LEFT[kind](A)
    expected = method.matmul(X, fresh)
    method.matmul(A, seen)  # now the short way is open to this height
    C = method.matmul(X, seen)
    assert C.dtype == expected.dtype
    assert C.shape == expected.shape
    assert torch.equal(C, expected)


@pytest.mark.parametrize("flaw", [torch.nan, torch.inf, -torch.inf, 1e38])
def test_the_short_way_sees_what_is_not_finite(flaw):
    A, B = operands(6)
    method = method_of("direct")
    prepared = method.prepare(B)
    method.matmul(A, prepared)
    A[-1, -1] = flaw
    with pytest.raises(ValueError, match="A holds"):
        method.matmul(A, prepared)


OUT = {
    "of another shape": lambda C, A: C[:, 1:],
    "with columns in memory": lambda C, A: C.T.contiguous().T,
    "in double": lambda C, A: C.double(),
    "with a gradient": lambda C, A: C.clone().requires_grad_(),
    "of NumPy": lambda C, A: C.numpy(),
    "over A": lambda C, A: A.reshape(-1)[: C.numel()].view(C.shape),
}


@pytest.mark.parametrize("kind", OUT)
def test_the_short_way_writes_to_no_wrong_place(kind):
    A, B = torch.randn(30, 64), torch.randn(64, 40)
    method = method_of("direct")
    prepared = method.prepare(B)
    before, C = A.clone(), method.matmul(A, prepared)
    with pytest.raises((TypeError, ValueError), match="out"):
        method.matmul(A, prepared, out=OUT[kind](C, A))
    assert torch.equal(A, before)


def test_a_result_in_inference_mode_is_an_ordinary_tensor():
    A, B = operands(7)
    method = method_of("direct")
    prepared = method.prepare(B)
    method.matmul(A, prepared)
    with torch.inference_mode():
        C = method.matmul(A, prepared)
    C += 1
    assert not C.is_inference()


def test_other_matrices_are_refused_the_second_time_too():
    A, B = operands(8)
    method = method_of("direct")
    prepared = method.prepare(B)
    method.matmul(A, prepared)
    with pytest.raises(ValueError, match="columns"):
        method.matmul(A[:, 1:], prepared)
    with pytest.raises(TypeError, match="library"):
        method.matmul(A.numpy(), prepared)


@pytest.mark.parametrize(
    "change", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_of_prepared_weights_does_not_point_into_the_first(change):
    A, B = operands(9)
    method = method_of("lrqmm_aware")
    prepared = method.prepare(B)
    expected = method.matmul(A, prepared)
    again = change(prepared)
    del prepared
    assert torch.equal(method.matmul(A, again), expected)
    assert torch.equal(method.matmul(A, again), expected)


def test_six_threads_at_once():
    A, B = operands(10)
    for name in METHODS:
        method = method_of(name)
        prepared = method.prepare(B)
        expected = method.matmul(A, prepared)
        wrong = []

        def work(method=method, prepared=prepared, expected=expected, wrong=wrong):
            for _ in range(20):
                if not torch.equal(method.matmul(A, prepared), expected):
                    wrong.append(threading.get_ident())

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_ten_thousand_products_keep_no_memory():
    A, B = torch.randn(32, 48), torch.randn(48, 40)
    method = method_of("lrqmm_aware")
    prepared = method.prepare(B)
    process = psutil.Process()
    for _ in range(500):
        method.matmul(A, prepared)
    before = process.memory_info().rss
    for _ in range(10_000):
        method.matmul(A, prepared)
    assert process.memory_info().rss - before < 2**22


def test_heights_are_not_remembered_without_end():
    B = torch.randn(24, 10)
    method = method_of("direct")
    prepared = method.prepare(B)
    for m in range(1, 300):
        method.matmul(torch.randn(m, 24), prepared)
    assert len(prepared.states[0].plans) < 100


def test_the_largest_magnitude_by_compiled_code():
    library = quick._library()
    rng = torch.Generator().manual_seed(2)
    for shape in ((1, 1), (3, 17), (70, 600)):
        X = torch.randn(shape, generator=rng)[:, ::1]
        assert library.largest(X.data_ptr(), *shape, shape[1], 2) == float(X.abs().max())
        X[-1, -1] = torch.nan
        assert np.isnan(library.largest(X.data_ptr(), *shape, shape[1], 2))


def test_phases_are_those_that_there_were():
    A, B = operands(12)
    for name in ("direct", "lrqmm_aware"):
        method = method_of(name)
        prepared = method.prepare(B)
        for _ in range(2):
            with phases.record() as seconds:
                method.matmul(A, prepared)
            assert {"quantize", "product"} <= set(seconds)
            assert all(time > 0 for time in seconds.values())
            assert ("sketch" in seconds) == (name != "direct")


@pytest.mark.parametrize("name", ["lrqmm", "lrqmm_aware"])
@pytest.mark.parametrize("side", ["m", "n"])
def test_low_rank_parts_of_more_rows_than_int32_sums_take_are_refused(name, side):
    """Sums along 400,000 equal rows would wrap around; direct has none along them."""
    long = torch.full((LARGEST_K + 1, 8), 0.3)
    A, B = (long, torch.rand(8, 6)) if side == "m" else (torch.rand(6, 8), long.T)
    method = lrqmm.get_method(name, execution="fused", rank=1)
    with pytest.raises(lrqmm.Unsupported, match=f"{side} is {LARGEST_K + 1}; allowed: up to"):
        method.matmul(A, method.prepare(B))
    direct = method_of("direct")
    C = direct.matmul(A, direct.prepare(B))
    assert (C - A @ B).norm() < 0.02 * (A @ B).norm()
