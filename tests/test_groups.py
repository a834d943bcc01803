"""Fused products with scales by group against the plain code, and what they refuse."""

import pickle

import numpy as np
import pytest
import torch

import lrqmm
from lrqmm.fused import LARGEST_K, groups, native
from lrqmm.fused.groups import PreparedGroups

LEVELS = [level for level in native.levels() if native.load(level)]

pytestmark = pytest.mark.skipif(not LEVELS, reason="nothing compiled here")

SETTINGS = {
    "int8": {"bits": 8},
    "int4": {"bits": 4, "bits_a": 8},
    "int4, signed": {"bits": 4, "bits_a": 8, "levels": "signed"},
    "int3, truncated": {"bits": 3, "bits_a": 6, "rounding": "truncate"},
    "int5": {"bits": 5, "bits_a": 8},
    "int2 both": {"bits": 2},
}
CORRECTIONS = {
    "direct": {},
    "lrqmm": {"rank": 3, "sides": "b", "sketch": "ones+sign", "oversampling": 0,
              "power_iterations": 0, "factor_dtype": "int8"},
}  # fmt: skip


@pytest.fixture(params=LEVELS)
def library(request, monkeypatch):
    found = native.load(request.param)
    monkeypatch.setattr(groups, "_library", lambda: found)
    return found


def operands(seed):
    rng = torch.Generator().manual_seed(seed)
    m, k, n = (int(x) for x in torch.randint(1, 170, (3,), generator=rng))
    A, B = torch.randn(m, k + 5, generator=rng), torch.randn(k + 5, n, generator=rng)
    if seed % 3 == 0:
        A = A.T.contiguous().T
    if seed % 3 == 1:
        B = B.T.contiguous().T
    if seed % 5 == 0:
        A[A < 0] = 0
        A[0] = 0
    return A, B


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("method", CORRECTIONS)
@pytest.mark.parametrize("seed", range(6))
def test_products_are_those_of_the_plain_code(library, setting, method, seed):
    A, B = operands(seed)
    group = (8, 32, 64, 128)[seed % 4]
    options = {**SETTINGS[setting], **CORRECTIONS[method], "granularity": f"group:{group}"}
    options |= {"rank": min(3, *A.shape, *B.shape)} if method == "lrqmm" else {}
    plain = lrqmm.matmul(A, B, method=method, **options)
    fused = lrqmm.matmul(A, B, method=method, execution="fused", **options)
    # a value within float32 rounding of a tie may go either way
    assert (fused - plain).norm() <= 2e-3 * (A @ B).norm()
    assert (fused - plain).abs().median() <= 1e-5 * (A @ B).abs().max()


def test_extremes_are_exact_in_a_group(library):
    """Codes at the ends of their range, of both signs, in every element."""
    for bits, low, high in ((8, -127, 127), (4, -7, 7)):
        for a, b in ((127, low), (-127, low), (-127, high)):
            A = torch.full((3, 256), float(a))
            B = torch.full((256, 70), float(b))
            method = lrqmm.get_method(
                "direct", execution="fused", bits=bits, bits_a=8, granularity="group:256"
            )
            C = method.matmul(A, method.prepare(B))
            torch.testing.assert_close(C, A @ B, rtol=1e-6, atol=0)


@pytest.mark.parametrize("threads", [1, 3])
def test_answers_do_not_depend_on_threads(threads):
    A, B = operands(11)
    before = torch.get_num_threads()
    options = {**SETTINGS["int4"], **CORRECTIONS["lrqmm"], "granularity": "group:32"}
    method = lrqmm.get_method("lrqmm", execution="fused", **options)
    prepared = method.prepare(B)
    try:
        torch.set_num_threads(2)
        expected = method.matmul(A, prepared)
        torch.set_num_threads(threads)
        assert torch.equal(method.matmul(A, prepared), expected)
    finally:
        torch.set_num_threads(before)


def test_weights_of_four_bits_take_half_a_byte():
    B = torch.randn(256, 128)
    method = lrqmm.get_method("direct", execution="fused", bits=4, bits_a=8, granularity="group:64")
    state = method.prepare(B).states[0]
    assert isinstance(state, PreparedGroups)
    library = native.library()
    assert state.panels.numel() == 256 * 128 // (2 if library.packs_halves() else 1)


def test_the_second_product_and_copies_give_the_same_bits():
    A, B = operands(7)
    for left, right in ((A, B), (A.numpy(), B.numpy())):
        method = lrqmm.get_method(
            "direct", execution="fused", bits=4, bits_a=8, granularity="group:32"
        )
        prepared = method.prepare(right)
        first = method.matmul(left, prepared)
        assert type(first) is type(left)
        assert method._quick(left, prepared, None, True) is not None
        again = pickle.loads(pickle.dumps(prepared))
        for state in (prepared, again):
            assert np.array_equal(np.asarray(method.matmul(left, state)), np.asarray(first))


REFUSED = {
    "granularity='group:12'": {"granularity": "group:12"},
    "sides": {"method": "lrqmm", "granularity": "group:32"},
    "'vector' for this method": {"method": "lrqmm_aware", "granularity": "group:32"},
    "zero_point": {"granularity": "group:32", "zero_point": "integer"},
    "'vector', 'group:N'": {"granularity": "tensor"},
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_grouped_codes_have_not_is_refused(named):
    options = {"method": "direct", **REFUSED[named]}
    with pytest.raises(ValueError, match=r"allowed: .* with execution='fused'|execution='fused'"):
        lrqmm.get_method(options.pop("method"), execution="fused", **options)


def test_where_nothing_was_compiled_it_says_so(monkeypatch):
    monkeypatch.setattr(groups, "_library", lambda: None)
    method = lrqmm.get_method("direct", execution="fused", granularity="group:32")
    with pytest.raises(lrqmm.Unsupported, match="nothing was compiled"):
        method.prepare(torch.randn(64, 8))


def test_layers_have_grouped_weights():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(96, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    X = torch.randn(5, 96)
    exact = net(X)
    low = lrqmm.replace_layers(
        net, method="direct", execution="fused", bits=8, granularity="group:32"
    )
    low = net if low is None else low
    assert (low(X) - exact).norm() < 0.05 * exact.norm()


def test_a_group_whose_sums_could_overflow_is_refused():
    k = LARGEST_K + 9
    method = lrqmm.get_method("direct", execution="fused", granularity=f"group:{k + k % 8}")
    with pytest.raises(lrqmm.Unsupported, match=f"allowed: up to {LARGEST_K}"):
        method.prepare(torch.ones(k, 2))
    short = lrqmm.get_method("direct", execution="fused", granularity="group:64")
    A, B = torch.ones(1, k), torch.ones(k, 2)
    torch.testing.assert_close(short.matmul(A, short.prepare(B)), A @ B)
