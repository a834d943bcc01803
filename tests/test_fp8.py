"""The rival in 8-bit floating point."""

import numpy as np
import oracle
import pytest
import torch

import lrqmm
from lrqmm.bench.measures._counter import count
from lrqmm.methods import bf16_f32, fp8
from lrqmm.products.backends.torch import exact_float32

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def operands(m, k, n, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (m, k), (k, n)
    return tuple(torch.from_numpy(rng.standard_normal(s, dtype=np.float32)) for s in shapes)


def nearest(x):
    """The float8_e4m3fn next to x in float64: 3 bits of mantissa, exponents from -6, so 2^-9."""
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(x), 2.0**-30))), -6)
    step = 2.0 ** (exponent - 3)
    return np.rint(x / step) * step


@pytest.mark.parametrize("seed", range(4))
def test_codes(seed):
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.standard_normal((9, 50), dtype=np.float32) * np.float32(10.0**seed))
    X[3], X[5] = 0, X[5] * 1e-42  # below the smallest scale
    for given in (X, X.T.contiguous().T):
        codes, scale = fp8.encode(given.to(DEVICE))
        codes, scale = codes.cpu(), scale.cpu()
        assert codes.dtype == torch.float8_e4m3fn
        assert codes.is_contiguous()
        assert scale.shape == (9, 1)
        assert scale[[3, 5]].tolist() == [[0], [0]]
        assert not codes.float()[[3, 5]].any()
        rows = [0, 1, 2, 4, 6, 7, 8]
        kept, codes, scale = X[rows], codes.float()[rows], scale[rows]
        assert codes.abs().amax(dim=1).tolist() == [448] * len(rows)
        assert torch.equal(scale[:, 0], kept.abs().amax(dim=1) / 448)
        error = (kept.double() - scale.double() * codes).abs()
        assert (error <= 2.0**-4 * kept.abs() + 1.001 * 2.0**-10 * scale).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (33, 100, 17), (64, 256, 128)], ids=str)
def test_product_of_the_rounded_operands(shape):
    A, B = operands(*shape)
    a, b = A.numpy().astype(np.float64), B.numpy().astype(np.float64)
    s = np.abs(a).max(axis=1, keepdims=True) / 448
    t = np.abs(b).max(axis=0, keepdims=True) / 448
    expected = (s * nearest(a / s)) @ (nearest(b / t) * t)
    method = lrqmm.get_method("fp8")
    A, B = A.to(DEVICE), B.to(DEVICE)
    C = method.matmul(A, B)
    assert C.dtype == torch.float32
    assert oracle.distance(C.cpu(), expected) < 0.004  # bfloat16 of the result
    assert torch.equal(method.matmul(A, method.prepare(B)), C)
    out = torch.empty_like(C)
    assert method.matmul(A, B, out=out) is out
    assert torch.equal(out, C)
    assert oracle.distance(C.cpu(), a @ b) < 0.08


@pytest.mark.parametrize("shape", [(1, 1, 1), (33, 100, 17), (64, 256, 128)], ids=str)
def test_float8_and_float32_sums_agree(shape):
    A, B = (X.to(DEVICE) for X in operands(*shape))
    left, right = fp8.encode(A), fp8.encode(B.T)
    if DEVICE == "cuda" and not fp8.has_float8(A.device):
        pytest.skip("no float8 on this GPU")
    in_float8, in_float32 = fp8.in_float8(left, right), fp8.in_float32(left, right)
    assert in_float8.dtype == torch.bfloat16
    assert in_float32.dtype == torch.float32
    assert in_float8.shape == in_float32.shape
    assert oracle.distance(in_float8.float().cpu(), in_float32.float().cpu()) < 0.004


def test_cost_model_agrees_with_counted_operations():
    A, B = operands(40, 60, 50)
    method = lrqmm.get_method("fp8")
    counted, model = count(method, A, B), method.cost(40, 60, 50)
    assert counted["float_operations"] == model.float_operations
    assert counted["integer_operations"] == model.integer_operations == 0
    assert 0 < model.bytes <= counted["bytes"]
    assert model.operand_bits == 8 * (40 * 60 + 60 * 50) + 32 * (40 + 50)


def test_other_libraries_and_parameters_are_refused():
    ones = np.ones((2, 2), np.float32)
    with pytest.raises(lrqmm.Unsupported, match="numpy has no float8 product; torch has one"):
        lrqmm.matmul(ones, ones, "fp8")
    with pytest.raises(TypeError, match="method 'fp8' has no parameter 'bits'; allowed: none"):
        lrqmm.get_method("fp8", bits=8)
    assert lrqmm.get_method("fp8").code_bits is None
    assert "fp8" in lrqmm.list_methods()


def test_float32_results_are_not_rounded_again():
    A, B = (X.abs().to(DEVICE) for X in operands(120, 200, 90))
    exact = (A.double() @ B.double()).cpu()
    for rounded, kept, most in (("bf16", "bf16_f32", 0.25), ("fp8", "fp8_f32", 0.95)):
        errors = [
            oracle.distance(lrqmm.matmul(A, B, name).cpu(), exact) for name in (rounded, kept)
        ]
        assert errors[1] < most * errors[0]


tried = bf16_f32.cpu_rounds


@pytest.mark.parametrize("rounds", [True, False])
def test_bfloat16_operands_with_torch_s_setting_and_without(monkeypatch, rounds):
    A, B = operands(64, 300, 70)
    monkeypatch.setattr(bf16_f32, "cpu_rounds", lambda: rounds)
    with exact_float32("bf16"):
        done_by_torch = tried()
    method = lrqmm.get_method("bf16_f32")
    C = method.matmul(A, B)
    assert method.emulated(A) is not rounds
    expected = A.bfloat16().double() @ B.bfloat16().double()
    if not rounds or done_by_torch:
        assert oracle.distance(C, expected) < 1e-6
    assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"
