"""Integer products of the compiled kernels: exact at every level that this processor runs."""

import pytest
import torch

import lrqmm
from lrqmm.fused import gemm, native

LEVELS = [level for level in native.levels() if native.load(level)]
EXTREMES = {"lowest": -128, "highest": 127}

pytestmark = pytest.mark.skipif(not LEVELS, reason="nothing compiled here")


@pytest.fixture(params=LEVELS)
def library(request):
    return native.load(request.param)


def codes(shape, rng, kind="mixed"):
    """int8 of any values; row-major, column-major, or a slice of a wider matrix."""
    if kind in EXTREMES:
        return torch.full(shape, EXTREMES[kind], dtype=torch.int8)
    X = torch.randint(-128, 128, (shape[0] + 3, shape[1] + 5), generator=rng, dtype=torch.int8)
    return {
        "mixed": X[: shape[0], : shape[1]].contiguous(),
        "columns": X[: shape[0], : shape[1]].T.contiguous().T,
        "slice": X[3:, 5:],
        "slice of columns": X.T.contiguous().T[1 : shape[0] + 1, 2 : shape[1] + 2],
    }[kind]


def exact(A, B):
    return A.to(torch.int64) @ B.to(torch.int64)


KINDS = ("mixed", "columns", "slice", "slice of columns", "lowest", "highest")


@pytest.mark.parametrize("seed", range(25))
def test_sums_are_exact(library, seed):
    """Forty shapes for each seed: a thousand in all, at every level."""
    rng = torch.Generator().manual_seed(seed)
    for number in range(40):
        m, k, n = (int(x) for x in torch.randint(1, 200, (3,), generator=rng))
        if number % 10 == 0:
            m, k = 1, 4 * k + 1
        if number % 10 == 1:
            m = 300 + m  # not thin
        left = ("mixed", "slice", "lowest", "highest")[number % 4]
        A, B = codes((m, k), rng, left), codes((k, n), rng, KINDS[number % len(KINDS)])
        expected = exact(A, B)
        packed = gemm.pack(B, library=library)
        for right in (B, packed):
            sums = gemm.product(A, right, library=library)
            assert torch.equal(sums.to(torch.int64), expected), (m, k, n, left)


def test_sums_up_to_the_longest_inner_dimension_are_exact(library):
    k = 131_071
    for a, b in ((-128, -128), (-128, 127), (127, 127)):
        A, B = torch.full((2, k), a, dtype=torch.int8), torch.full((k, 3), b, dtype=torch.int8)
        expected = torch.full((2, 3), a * b * k, dtype=torch.int64)
        for right in (B, gemm.pack(B, library=library)):
            assert torch.equal(gemm.product(A, right, library=library).to(torch.int64), expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 130, 65), (300, 64, 200), (13, 0, 5), (5, 9, 0)])
@pytest.mark.parametrize("rank", [0, 1, 17])
def test_a_scaled_product_has_its_update(library, shape, rank, monkeypatch):
    monkeypatch.setattr(gemm, "_library", lambda: library)
    m, k, n = shape
    rng = torch.Generator().manual_seed(m + k + n)
    A, B = codes((m, k), rng), codes((k, n), rng)
    s, t = torch.rand(m, generator=rng), torch.randn(n, generator=rng)
    X, Y = torch.randn(m, rank, generator=rng), torch.randn(n, rank, generator=rng)
    C = torch.full((m, n), torch.nan)
    gemm.scaled_product(A, gemm.pack(B), s, t, X, Y, C)
    expected = s[:, None].double() * t.double() * exact(A, B) + X.double() @ Y.double().T
    torch.testing.assert_close(C.double(), expected, rtol=1e-5, atol=1e-5 * (1 + k))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_answers_do_not_depend_on_threads(library, threads, monkeypatch):
    monkeypatch.setattr(gemm, "_library", lambda: library)
    rng = torch.Generator().manual_seed(1)
    A, B = codes((150, 333), rng), codes((333, 290), rng)
    s, t = torch.rand(150, generator=rng), torch.rand(290, generator=rng)
    X, Y = torch.randn(150, 5, generator=rng), torch.randn(290, 5, generator=rng)
    one, many = torch.empty(150, 290), torch.empty(150, 290)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        gemm.scaled_product(A, gemm.pack(B), s, t, X, Y, one)
        torch.set_num_threads(threads)
        gemm.scaled_product(A, gemm.pack(B), s, t, X, Y, many)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, many)


WRONG = {
    "left of another dtype": lambda A, B: (A.to(torch.int16), B),
    "left with columns in memory": lambda A, B: (A.T.contiguous().T, B),
    "left too short": lambda A, B: (A[:, :-1], B),
    "right of another dtype": lambda A, B: (A, B.to(torch.uint8)),
    "right with gaps": lambda A, B: (A, torch.kron(B, torch.ones(2, 2, dtype=B.dtype))[::2, ::2]),
    "right on no device": lambda A, B: (A, B.to("meta")),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_kernels_get_no_pointer_before_it_is_looked_at(library, wrong):
    A, B = torch.ones(6, 8, dtype=torch.int8), torch.ones(8, 10, dtype=torch.int8)
    A, B = WRONG[wrong](A, B)
    with pytest.raises((TypeError, ValueError)):
        gemm.product(A, B, library=library)


def test_a_level_that_gives_wrong_sums_is_not_used(monkeypatch):
    monkeypatch.setattr(gemm, "exact", lambda library: False)
    monkeypatch.setattr(gemm, "instruction_sets", list)
    gemm.usable.cache_clear()
    try:
        with pytest.warns(UserWarning, match="wrong sums"):
            assert not gemm.usable()
    finally:
        gemm.usable.cache_clear()


def test_the_trial_sees_a_wrong_sum(library, monkeypatch):
    assert gemm.exact(library)
    right = gemm.product
    monkeypatch.setattr(gemm, "product", lambda *a, **k: right(*a, **k) + 1)
    assert not gemm.exact(library)


def test_beside_amx_products_are_those_of_torch(monkeypatch):
    monkeypatch.setattr(gemm, "instruction_sets", lambda: ["AMX-INT8"])
    gemm.usable.cache_clear()
    try:
        assert not gemm.usable()
        A, B = torch.randn(70, 90), torch.randn(90, 50)
        method = lrqmm.get_method("lrqmm", execution="fused", rank=4)
        C = method.matmul(A, method.prepare(B))
        assert (C - A @ B).norm() < 0.02 * (A @ B).norm()
    finally:
        gemm.usable.cache_clear()
