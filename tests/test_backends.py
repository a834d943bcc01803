"""Integer products are exact on every library and route; float products are what they say."""

import numpy as np
import pytest
import torch
from oracle import LIBRARIES, distance, product, to, to_numpy

import lrqmm
from lrqmm.products.backends import torch as torch_backend

SIZES = (1, 2, 3, 5, 8, 13, 16, 17, 31, 64, 97)
DEPTHS = (1, 2, 7, 8, 61, 100, 127, 1009, 1024, 1100, 2053)
TOP = {"int8": 127, "int16": 255}


@pytest.fixture(params=[*LIBRARIES, "torch in float32 pieces"])
def library(request, monkeypatch):
    if request.param == "torch in float32 pieces":
        monkeypatch.setattr(torch_backend, "cpu_int_mm_refused", lambda: "none")
    return request.param.split()[0]


def codes(rng, shape, dtype, kind):
    top = TOP[dtype]
    bottom = -top - (dtype == "int8")
    values = {
        "all": np.arange(bottom, top + 1),
        "lowest": [bottom],
        "highest": [top],
        "extremes": [bottom, top],
        "four bits": np.arange(-8, 8),
        "zero": [0],
    }[kind]
    return rng.choice(values, shape).astype(dtype)


def laid(x, layout):
    """The same matrix in another memory layout."""
    if layout == "fortran":
        return np.asfortranarray(x)
    if layout == "transposed":
        return x.T.copy().T
    if layout == "strided":
        wide = np.full((2 * x.shape[0], 3 * x.shape[1]), 99, x.dtype)
        wide[1::2, ::3] = x
        return wide[1::2, ::3]
    if layout == "reversed":
        return x[::-1, ::-1].copy()[::-1, ::-1]
    return x


@pytest.mark.parametrize("left", TOP)
@pytest.mark.parametrize("right", TOP)
def test_integer_products_are_exact(library, left, right):
    layouts = ["c", "fortran", "transposed", "strided"] + ["reversed"] * (library == "numpy")
    kinds = ["all", "lowest", "highest", "extremes", "four bits", "zero"]
    rng = np.random.default_rng([left == "int8", right == "int8"])
    for case in range(50):
        m, k, n = rng.choice(SIZES), rng.choice(DEPTHS), rng.choice(SIZES)
        a_is, b_is = rng.choice(kinds, 2)
        a_laid, b_laid = rng.choice(layouts, 2)
        a = laid(codes(rng, (m, k), left, a_is), a_laid)
        b = laid(codes(rng, (k, n), right, b_is), b_laid)
        found = to_numpy(lrqmm.integer_matmul(to(library, a), to(library, b)))
        about = f"case {case}: {m}x{k}x{n}, {a_is} {a_laid}, {b_is} {b_laid}"
        assert found.dtype == np.int32, about
        np.testing.assert_array_equal(found, a.astype(np.int64) @ b.astype(np.int64), err_msg=about)


@pytest.mark.parametrize(
    ("dtype", "k"),
    [("int8", 131072), ("int8", 131073), ("int8", 150001), ("int16", 32768), ("int16", 40001)],
)
@pytest.mark.parametrize("kind", ["lowest", "extremes"])
def test_sums_beyond_int32_are_exact(library, dtype, k, kind):
    rng = np.random.default_rng(k)
    a, b = codes(rng, (2, k), dtype, kind), codes(rng, (k, 3), dtype, kind)
    exact = a.astype(np.int64) @ b.astype(np.int64)
    if kind == "lowest":
        assert exact.max() > 2**31 - 1 or dtype == "int16"
    found = to_numpy(lrqmm.integer_matmul(to(library, a), to(library, b)))
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0), (0, 0, 0)])
@pytest.mark.parametrize("dtype", TOP)
def test_empty_integer_products(library, shape, dtype):
    m, k, n = shape
    a, b = np.ones((m, k), dtype), np.ones((k, n), dtype)
    found = to_numpy(lrqmm.integer_matmul(to(library, a), to(library, b)))
    np.testing.assert_array_equal(found, np.zeros((m, n)))


@pytest.mark.parametrize(
    ("a", "b", "error", "named"),
    [
        (np.ones((2, 1024), np.int8), np.ones((2048, 3), np.int8), ValueError, "1024.*2048"),
        (np.ones((2, 3), np.int8), np.ones((4, 2), np.int8), ValueError, "2.*3.*4"),
        (np.ones(3, np.int8), np.ones((3, 2), np.int8), ValueError, "3"),
        (np.full((2, 3), 0.5), np.full((3, 2), 0.5), TypeError, "float64.*int8"),
        (np.ones((2, 3), np.int32), np.ones((3, 2), np.int8), TypeError, "int32.*int8"),
        (np.ones((2, 3), np.int8), np.full((3, 2), -256, np.int16), ValueError, "255"),
    ],
    ids=["deeper b", "misfit", "1-D", "float", "int32", "ten bits"],
)
def test_integer_product_refuses(library, a, b, error, named):
    with pytest.raises(error, match=named):
        lrqmm.integer_matmul(to(library, a), to(library, b))


def test_integer_route_in_words(monkeypatch):
    X = torch.ones(1)
    for has, words in ((True, "torch._int_mm (cpu)"), (False, "exact float32 pieces")):
        monkeypatch.setattr(
            torch_backend, "cpu_int_mm_refused", lambda has=has: "" if has else "none"
        )
        assert lrqmm.integer_route(X).startswith(words)
    assert lrqmm.integer_route(np.ones(1)).startswith("exact float32 pieces")


def pair():
    rng = np.random.default_rng(1)
    return (rng.standard_normal(shape, np.float32) for shape in ((50, 300), (300, 40)))


@pytest.mark.parametrize("library", LIBRARIES)
def test_sgemm_is_float32(library):
    A, B = pair()
    C = lrqmm.matmul(to(library, A), to(library, B), method="sgemm")
    assert distance(C, product(A, B)) < 1e-6


def test_bf16_rounds_the_operands():
    A, B = pair()
    C = lrqmm.matmul(to("torch", A), to("torch", B), method="bf16")
    rounded = [torch.from_numpy(X).bfloat16().double().numpy() for X in (A, B)]
    assert 1e-3 < distance(C, product(A, B)) < 1e-2
    assert distance(C, product(*rounded)) < 3e-3  # what is left: the result's own rounding


@pytest.mark.parametrize(
    ("method", "library", "reason"),
    [
        ("bf16", "numpy", "NumPy has no bfloat16"),
        ("tf32", "numpy", "NumPy has no tf32"),
        ("bf16", "array_api_strict", "array_api_strict has no bfloat16"),
        ("tf32", "torch", "TF32 needs a CUDA device"),
    ],
)
def test_unsupported_precisions_say_why(method, library, reason):
    A, B = pair()
    with pytest.raises(lrqmm.Unsupported, match=reason):
        lrqmm.matmul(to(library, A), to(library, B), method=method)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("method", ["sgemm", "direct"])
def test_users_precision_setting_neither_matters_nor_changes(monkeypatch, legacy, method):
    monkeypatch.setattr(torch_backend, "cpu_int_mm_refused", lambda: "none")
    A, B = (torch.from_numpy(X) for X in pair())
    expected = lrqmm.matmul(A, B, method=method)
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        if legacy:
            torch.set_float32_matmul_precision("medium")
        else:
            torch.backends.cuda.matmul.fp32_precision = "tf32"
        asked = [backend.fp32_precision for backend in backends]
        found = lrqmm.matmul(A, B, method=method)
        assert [backend.fp32_precision for backend in backends] == asked
        assert not legacy or torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
        for backend, old in zip(backends, before, strict=True):
            backend.fp32_precision = old
    assert distance(found, expected) < 1e-6
