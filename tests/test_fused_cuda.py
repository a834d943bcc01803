"""CUDA's kernels against slow references, and the whole method against the CPU's fused path.

Without a GPU, Triton's run in its interpreter on CPU tensors (`conftest` sees to it).
"""

import importlib
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

pytest.importorskip("triton")

import triton

import lrqmm
from lrqmm import fused
from lrqmm.fused import cpu, cuda, thin, triton_products, triton_quantize
from lrqmm.fused.coded import Coded
from lrqmm.products import packing
from lrqmm.products.packing import triton_kernels as packing_triton

TIE = 2e-5  # x · (1 / scale) has two roundings: 127 · 2^-23 from x / scale
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HOPPER = platform.system() == "Linux" and platform.machine() == "x86_64"


@dataclass(frozen=True)
class Library:
    """The module of the kernels, and the way to its arrays and back."""

    kernels: ModuleType
    up: Any

    def down(self, x):
        return x.get() if hasattr(x, "get") else x.cpu().numpy()


def cupy_with_gpu():
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception:  # no CuPy, no driver or no device
        return None
    return cupy


@pytest.fixture
def library():
    return Library(cuda, lambda X: torch.from_numpy(X).to(DEVICE))


LAYOUTS = {
    "rows": lambda up, X: up(np.ascontiguousarray(X)),
    "columns": lambda up, X: up(np.ascontiguousarray(X.T)).T,
    "every other": lambda up, X: up(np.repeat(X, 2, axis=1))[:, ::2],
}


# quantisation


def reference(X, bits, rounding):
    """x / scale in float64, codes and scale as documented."""
    top = 2 ** (bits - 1) - 1
    v, codes, scales = np.zeros(X.shape), np.zeros(X.shape), np.zeros(len(X), np.float32)
    for i, row in enumerate(X):
        largest = np.abs(row).max(initial=0)
        scale = np.float32(largest / np.float32(top + (rounding == "signed")))
        if rounding == "signed" and row.max() > -row.min():
            scale = -scale
        if abs(scale) < 2.0**-126:
            continue
        scales[i] = scale
        v[i] = row.astype(np.float64) / np.float64(scale)
        if rounding == "nearest":
            codes[i] = np.rint(v[i])
        elif rounding == "signed":
            codes[i] = np.minimum(np.rint(v[i]), top)
        else:
            codes[i] = np.where(np.abs(row) == largest, np.sign(row) * top, np.trunc(v[i]))
    return v, codes, scales


def check_quantized(library, X, given, bits, rounding):
    coded = library.kernels.quantize(given, bits, rounding, rank=3, residual=True)
    assert coded.room.shape == (len(X) + 3, X.shape[1])
    unit = 254 if rounding == "nearest" else 127
    assert coded.unit == 1 / unit
    codes, digits, scale = (library.down(x) for x in (coded.codes, coded.digits, coded.scale))
    assert codes.dtype == digits.dtype == np.int8
    assert scale.dtype == np.float32
    assert codes.flags.c_contiguous
    assert digits.flags.c_contiguous
    v, expected, scales = reference(X, bits, rounding)
    assert np.array_equal(scale, scales)
    apart = np.abs(v - np.rint(v)) if rounding == "truncate" else 0.5 - np.abs(v - np.rint(v))
    differ = codes != expected
    assert (apart[differ] < TIE).all()
    assert (np.abs(codes - expected)[differ] == 1).all()
    assert (np.abs(digits - unit * (v - codes)) <= 0.5 + unit * TIE).all()
    assert (np.abs(digits.astype(int)) <= 127).all()
    return codes, digits


SHAPES = [(1, 1), (7, 33), (65, 131), (300, 5), (3, 1100)]


@pytest.mark.parametrize("rounding", ["nearest", "truncate", "signed"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_and_digits(library, bits, rounding):
    rng = np.random.default_rng(bits)
    for shape in SHAPES:
        X = rng.standard_normal(shape, dtype=np.float32) * np.float32(10.0 ** rng.integers(-9, 9))
        if len(X) > 2:
            X[rng.integers(len(X))] = 0
            X[rng.integers(len(X))] *= np.float32(1e-38) / np.abs(X).max()  # below the smallest
        for layout in LAYOUTS.values():
            check_quantized(library, X, layout(library.up, X), bits, rounding)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_are_the_same_without_digits(library, layout):
    X = np.random.default_rng(0).standard_normal((33, 70), dtype=np.float32)
    given = LAYOUTS[layout](library.up, X)
    for rounding in ("nearest", "truncate", "signed"):
        own = library.kernels.quantize(given, 5, rounding, rank=0, residual=False)
        assert own.digits is None
        other = library.kernels.quantize(given, 5, rounding, rank=0, residual=True)
        assert np.array_equal(library.down(own.codes), library.down(other.codes))
        assert np.array_equal(library.down(own.scale), library.down(other.scale))


@pytest.mark.parametrize("k", [triton_quantize.LONGEST_ROW, triton_quantize.LONGEST_ROW + 1])
def test_rows_up_to_and_beyond_the_longest_held(library, k):
    X = np.random.default_rng(k).standard_normal((1, k), dtype=np.float32)
    check_quantized(library, X, library.up(X), 8, "truncate")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ties_go_to_even_and_truncation_goes_to_zero(library, layout):
    X = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, -126.5, 3, 0]], np.float32)
    given = LAYOUTS[layout](library.up, X)
    codes, digits = check_quantized(library, X, given, 8, "nearest")
    assert codes.tolist() == [[127, 0, 2, 2, 0, -2, -2, -126, 3, 0]]
    assert digits.tolist() == [[0, 127, -127, 127, -127, 127, -127, -127, 0, 0]]
    codes, digits = check_quantized(library, X, given, 8, "truncate")
    assert codes.tolist() == [[127, 0, 1, 2, 0, -1, -2, -126, 3, 0]]
    assert digits.tolist() == [[0, 64, 64, 64, -64, -64, -64, -64, 0, 0]]  # 63.5 is a tie too


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bits", [3, 6, 8])
def test_truncation_keeps_the_largest_at_the_top(library, bits, layout):
    X = np.random.default_rng(bits).standard_normal((400, 3), dtype=np.float32)
    X[:, 2] = -X[:, 0]  # the largest may occur twice
    top = np.float32(2 ** (bits - 1) - 1)
    largest = np.abs(X).max(axis=1)
    assert (largest * (1 / (largest / top)) < top).any()  # where plain truncation loses it
    codes, _ = check_quantized(library, X, LAYOUTS[layout](library.up, X), bits, "truncate")
    assert np.array_equal(np.abs(codes) == top, np.abs(X) == largest[:, None])


def test_scales_down_to_the_smallest_normal_number(library):
    smallest = np.float32(2.0**-126)
    X = np.array([[1, 0.25], [1 - 2.0**-23, 0.5], [0, 0], [2.0**120, -(2.0**119)]], np.float32)
    X[:2] *= 7 * smallest
    for layout in LAYOUTS.values():
        given = layout(library.up, X)
        own = library.kernels.quantize(given, 4, "nearest", rank=0, residual=True)
        assert library.down(own.scale)[:3].tolist() == [smallest, 0, 0]
        assert not library.down(own.codes)[1:3].any()
        assert not library.down(own.digits)[1:3].any()
        check_quantized(library, X, given, 4, "nearest")
        check_quantized(library, X, given, 4, "truncate")


def test_work_space_is_used_again_and_grows(library):
    space = {}
    X = np.ones((6, 20), np.float32)
    buffers = []
    for rows in (5, 6, 4):
        given = library.up(X[:rows])
        own = library.kernels.quantize(given, 8, "nearest", rank=2, residual=True, space=space)
        assert own.room.shape == (rows + 2, 20)
        assert own.digits.shape == (rows, 20)
        assert (library.down(own.codes) == 127).all()
        buffers.append(space["codes"])
    assert buffers[1] is buffers[2]
    assert [buffer.shape[0] for buffer in buffers] == [7 * 20, 8 * 20, 8 * 20]


# products


def codes_of(rng, shape):
    return rng.integers(-128, 128, shape).astype(np.int8)


def exact(a, b):
    return a.astype(np.int64) @ b.astype(np.int64)


PRODUCTS = [
    (1, 1, 1),
    (16, 1100, 33),
    (33, 1041, 16),
    (5, 7, 3),
    (1, 129, 50),
    (64, 128, 96),
    (270, 12, 40),  # more tiles than share a group
    (3, 0, 4),
    (0, 5, 4),
]


@pytest.mark.parametrize("shape", PRODUCTS, ids=str)
def test_int_product_is_exact(library, shape):
    (m, k, n), rng = shape, np.random.default_rng(sum(shape))
    a, b = codes_of(rng, (m, k)), codes_of(rng, (n, k))
    for layout in ("rows", "columns", "every other"):
        given = (LAYOUTS[layout](library.up, x) for x in (a, b))
        C = library.down(library.kernels.int_product(*given))
        assert C.dtype == np.int32
        assert np.array_equal(C, exact(a, b.T))


THIN = [(1, 1, 1), (16, 1100, 33), (5, 2500, 70), (33, 1024, 64), (20, 1025, 65), (130, 70, 10)]


@pytest.mark.parametrize("shape", [*THIN, (3, 0, 4)], ids=str)
def test_thin_product_is_exact(library, shape):
    (w, rows, k), rng = shape, np.random.default_rng(sum(shape))
    T, R = codes_of(rng, (w, rows)), codes_of(rng, (rows, k))
    for layout in ("rows", "columns"):
        given = (LAYOUTS[layout](library.up, x) for x in (T, R))
        C = library.down(library.kernels.thin_product(*given))
        assert C.dtype == np.int32
        assert np.array_equal(C, exact(T, R))


@pytest.mark.parametrize("value", [127, -128])
@pytest.mark.parametrize("length", [1023, 1024, 1025, 2049])
def test_the_largest_sums_are_exact(library, length, value):
    T, R = np.full((2, length), value, np.int8), np.full((length, 3), value, np.int8)
    T[1, 0] = 1  # odd, so that float32 beyond 2^24 shows
    C = library.down(library.kernels.thin_product(library.up(T), library.up(R)))
    assert np.array_equal(C, exact(T, R))
    C = library.down(library.kernels.int_product(library.up(T), library.up(R.T.copy())))
    assert np.array_equal(C, exact(T, R))


def multiply(library, a, b, s, t, X, Y, out=None):
    """diag(s) a bᵀ diag(t) + X Yᵀ."""
    left, right = (
        Coded(library.up(codes), None, library.up(scale), 1.0) for codes, scale in ((a, s), (b, t))
    )
    factors = (X, Y) if isinstance(X, type(left.scale)) else (library.up(X), library.up(Y))
    return library.kernels.multiply(left, right, lambda *thin: factors, out, {})


@pytest.mark.parametrize("q", [0, 1, 16, 70])
@pytest.mark.parametrize("shape", [*PRODUCTS[:-2], (70, 100, 130)], ids=str)
def test_scaled_product(library, shape, q):
    (m, k, n), rng = shape, np.random.default_rng(sum(shape))
    a, b = codes_of(rng, (m, k)), codes_of(rng, (n, k))
    s, t = (rng.random(size, dtype=np.float32) for size in (m, n))
    X, Y = (rng.standard_normal((size, q), dtype=np.float32) for size in (m, n))
    X *= np.float32(1e5)  # about as large as the direct product
    direct = s[:, None].astype(np.float64) * t * exact(a, b.T)
    expected = direct + X.astype(np.float64) @ Y.astype(np.float64).T
    bound = 2.0**-22 * np.abs(direct) + (q + 16) * 2.0**-22 * (
        np.abs(X).astype(np.float64) @ np.abs(Y).astype(np.float64).T
    )
    for layout in ("rows", "columns"):
        C = multiply(library, a, b, s, t, *(LAYOUTS[layout](library.up, x) for x in (X, Y)))
        found = library.down(C)
        assert found.dtype == np.float32
        assert found.shape == (m, n)
        assert (np.abs(found - expected) <= bound).all()
    out = library.up(np.full((m, n), np.nan, np.float32))
    assert multiply(library, a, b, s, t, X, Y, out) is out
    assert np.array_equal(library.down(out), found)


@pytest.mark.parametrize("q", [1, 32, 128])
def test_the_update_alone(library, q):
    rng = np.random.default_rng(q)
    X, Y = (rng.random((size, q), dtype=np.float32) for size in (40, 70))  # no cancellation
    zeros = (np.zeros(shape, np.int8) for shape in ((40, 50), (70, 50)))
    ones = (np.ones(size, np.float32) for size in (40, 70))
    C = library.down(multiply(library, *zeros, *ones, X, Y))
    assert np.allclose(C, X.astype(np.float64) @ Y.astype(np.float64).T, rtol=1e-5, atol=0)


# the thin steps


ARRAYS = {"numpy": np.asarray, "torch": torch.from_numpy}
if cupy_with_gpu():
    ARRAYS["cupy"] = cupy_with_gpu().asarray


@pytest.fixture(params=ARRAYS)
def up(request):
    return ARRAYS[request.param]


def down(x):
    return x.get() if hasattr(x, "get") else np.asarray(x)


def thin_matrix(rng, n, w):
    X = rng.standard_normal((n, w), dtype=np.float32) * np.float32(10) ** rng.integers(-9, 9, w)
    X[:, rng.integers(w)] = 0
    if w > 2:
        X[:, rng.integers(w)] *= np.float32(1e-30) * np.float32(1e-15)  # below the smallest scale
    return X.astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (130, 16), (1000, 33)], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_thin_digits_are_those_of_the_cpu(up, shape, weighted):
    (n, w), rng = shape, np.random.default_rng(sum(shape))
    X = thin_matrix(rng, n, w)
    weight = rng.random(n, dtype=np.float32) if weighted else None
    given = None if weight is None else torch.from_numpy(weight)
    expected, scales = cpu.two_digits(torch.from_numpy(X), given)
    for layout in ("rows", "columns"):
        codes, scale = thin.two_digits(LAYOUTS[layout](up, X), up(weight) if weighted else None)
        codes, scale = down(codes), down(scale)
        assert codes.dtype == np.int8
        assert scale.dtype == np.float32
        assert np.array_equal(scale, scales.numpy())
        # a tie may fall either way: what the two digits say is the same to one of the second's
        values, other = (254 * d[:w].astype(int) + d[w:] for d in (codes, expected.numpy()))
        assert np.abs(values - other).max() <= 1
        assert np.mean(values != other) < 0.01
    expected = torch.empty((w, n), dtype=torch.int8)
    scales = cpu.one_digit(torch.from_numpy(X), expected)
    codes = up(np.full((w + 2, n), 99, np.int8))
    scale = thin.one_digit(up(X), codes[1:-1, :])
    assert np.array_equal(down(scale), scales.numpy())
    assert np.array_equal(down(codes)[1:-1], expected.numpy())
    assert (down(codes)[[0, -1]] == 99).all()


@pytest.mark.parametrize("shape", [(1, 1), (40, 7), (300, 32)], ids=str)
def test_thin_sums_merge_as_on_the_cpu(up, shape):
    (n, w), rng = shape, np.random.default_rng(sum(shape))
    sums = rng.integers(-(2**30), 2**30, (n, 2 * w)).astype(np.int32)
    f, g = (rng.random(size, dtype=np.float32) for size in (n, w))
    for rows in (None, f):
        factor = None if rows is None else torch.from_numpy(rows)
        expected = cpu.merge(torch.from_numpy(sums), factor, torch.from_numpy(g)).numpy()
        for layout in ("rows", "columns"):
            given = LAYOUTS[layout](up, sums), None if rows is None else up(rows), up(g)
            merged = down(thin.merge(*given))
            assert merged.dtype == np.float32
            assert np.allclose(merged, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("condition", [1e0, 1e3, 1e8, np.inf, 0])
def test_thin_bases_are_those_of_the_cpu(up, condition):
    rng = np.random.default_rng(9)
    U = np.linalg.qr(rng.standard_normal((80, 6)))[0]
    V = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    s = {0: np.zeros(6), np.inf: np.array([1.0, 1, 1, 1, 0, 0])}.get(condition)
    s = np.geomspace(1, 1 / condition, 6) if s is None else s
    Y = ((U * s) @ V).astype(np.float32)
    Q = down(thin.orthonormal(up(Y)))
    assert Q.dtype == np.float32
    Q = Q.astype(np.float64)
    assert np.allclose(Q.T @ Q, np.eye(6), atol=1e-5)
    assert np.allclose(Q @ (Q.T @ Y), Y, atol=1e-6)
    if condition in (1e0, 1e3):
        assert np.allclose(Q, cpu.orthonormal(torch.from_numpy(Y)), atol=1e-6)


@pytest.mark.parametrize("sketch", ["sign", "ones+sign"])
def test_signs_are_those_of_the_cpu(library, sketch):
    own = library.down(library.kernels.signs(70, 9, sketch, (3, 1)))
    assert own.dtype == np.int8
    assert np.array_equal(own, cpu.signs(70, 9, sketch, (3, 1)))


# the whole method


@pytest.fixture
def on_cuda(library, monkeypatch):
    """The method run by CUDA's kernels, from NumPy and back."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(fused, "_kernels", lambda X: library.kernels)
    return library


def operands(m, k, n):
    rng = np.random.default_rng(m + k + n)
    A = rng.standard_normal((m, k), dtype=np.float32) + np.float32(0.3)
    return A, rng.random((k, n), dtype=np.float32)


OPTIONS = {
    "direct": [{}],
    "lrqmm": [{}, dict(oversampling=3, power_iterations=1), dict(terms="first"), dict(sides="a")],
    "lrqmm_aware": [{}, dict(oversampling=3, power_iterations=0), dict(sides="b")],
}


@pytest.mark.parametrize("rounding", [{}, {"rounding": "truncate"}, {"levels": "signed"}], ids=str)
@pytest.mark.parametrize("shape", [(50, 70, 45), (1, 33, 64), (64, 31, 9)], ids=str)
@pytest.mark.parametrize("method", OPTIONS)
def test_agrees_with_the_cpu(method, shape, rounding, on_cuda, monkeypatch):
    A, B = operands(*shape)
    exact = oracle.product(A, B)
    for options in OPTIONS[method] if shape[0] > 1 else [{}]:
        how = dict(bits=4, execution="fused", **rounding, **options)
        if method != "direct":
            how["rank"] = 5
        own = lrqmm.get_method(method, **how)
        found = on_cuda.down(own.matmul(on_cuda.up(A), on_cuda.up(B)))
        with monkeypatch.context() as cpu_only:
            cpu_only.setattr(fused, "_kernels", lambda X: cpu)
            expected = lrqmm.get_method(method, **how).matmul(A, B)
            direct = lrqmm.matmul(A, B, bits=4, method="direct", **rounding)
        assert found.dtype == np.float32
        error = np.linalg.norm(direct - exact)
        assert np.linalg.norm(found - expected) < 0.01 * error


@pytest.mark.parametrize("method", OPTIONS)
def test_prepared_out_and_layouts_agree(method, on_cuda):
    A, B = operands(40, 52, 36)
    own = lrqmm.get_method(method, bits=6, execution="fused")
    up = on_cuda.up
    expected = on_cuda.down(own.matmul(up(A), up(B)))
    prepared = own.prepare(up(B))
    for _ in range(2):
        assert np.array_equal(on_cuda.down(own.matmul(up(A), prepared)), expected)
    out = up(np.full((40, 36), np.nan, np.float32))
    assert own.matmul(up(A), prepared, out=out) is out
    assert np.array_equal(on_cuda.down(out), expected)
    C = own.matmul(LAYOUTS["columns"](up, A), LAYOUTS["columns"](up, B))
    assert oracle.distance(on_cuda.down(C), expected) < 1e-4
    batch = on_cuda.down(own.matmul(up(np.stack([A, 2 * A])), up(B)))
    assert np.array_equal(batch, np.stack([expected, 2 * expected]))


class Storages(TorchDispatchMode):
    """Memory of at least `size` bytes that torch calls return."""

    def __init__(self, size):
        super().__init__()
        self.size, self.found = size, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_flatten(out)[0] if isinstance(x, torch.Tensor)]
        self.found |= {memory(x) for x in tensors if x.untyped_storage().nbytes() >= self.size}
        return out


def memory(x):
    return x.untyped_storage().data_ptr()


@pytest.mark.parametrize("method", OPTIONS)
def test_allocates_nothing_of_the_matrices_size(method, on_cuda):
    if on_cuda.kernels is not cuda:
        pytest.skip("torch calls only; cuBLAS wants a transposed copy")
    n, rank = 96, {} if method == "direct" else dict(rank=4)
    A, B = (on_cuda.up(X) for X in operands(n, n, n))
    own = lrqmm.get_method(method, execution="fused", **rank)
    prepared, out = own.prepare(B), torch.empty_like(A)
    own.matmul(A, prepared, out=out)  # the work space is made here
    coded, spaces = prepared.states[0].coded, own._spaces.named.values()
    known = [A, out, coded.room, *(buffer for space in spaces for buffer in space.values())]
    if coded.digits is not None:
        known.append(coded.digits)
    with Storages(n * n) as storages:  # bytes: a matrix of int8
        own.matmul(A, prepared, out=out, check_finite=False)
    assert storages.found
    assert storages.found <= {memory(x) for x in known}


def test_no_residual_nothing_to_compensate(on_cuda):
    A = np.random.default_rng(0).integers(-7, 8, (20, 30)).astype(np.float32)
    A[:, 0] = 7
    B = np.ascontiguousarray(A.T)
    for method in ("lrqmm", "lrqmm_aware"):
        given = on_cuda.up(A), on_cuda.up(B)
        C = lrqmm.matmul(*given, method, bits=4, rank=3, execution="fused")
        assert np.array_equal(on_cuda.down(C), A @ B)


def test_work_space_is_that_of_its_library(on_cuda, monkeypatch):
    A, B = operands(9, 20, 12)
    own = lrqmm.get_method("direct", execution="fused")
    first = on_cuda.down(own.matmul(on_cuda.up(A), on_cuda.up(B)))
    with monkeypatch.context() as cpu_only:
        cpu_only.setattr(fused, "_kernels", lambda X: cpu)
        assert oracle.distance(own.matmul(A, B), first) < 1e-6
    assert np.array_equal(on_cuda.down(own.matmul(on_cuda.up(A), on_cuda.up(B))), first)


# which kernels, which tiles


class OnCuda:
    """What `_kernels` looks at, of a tensor where there is no GPU."""

    device = torch.device("cuda")


def test_kernels_follow_library_and_device(monkeypatch):
    tensor = torch.ones(2, 2)
    assert fused._kernels(tensor) is fused._kernels(tensor.numpy()) is cpu
    with pytest.raises(lrqmm.Unsupported, match="no fused execution for torch on this device"):
        fused._kernels(tensor.to("meta"))
    monkeypatch.setattr(fused, "library_of", lambda X: "torch")
    assert fused._kernels(OnCuda()) is cuda
    for name in ("cuda", "triton_products", "triton_quantize"):
        monkeypatch.delitem(sys.modules, f"lrqmm.fused.{name}")
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(lrqmm.Unsupported, match="needs triton, which is not installed"):
        fused._kernels(OnCuda())


class CuPyArray:
    """What a CuPy array shows of itself, in the memory of a tensor."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


def test_cupys_arrays_go_through_torch_in_their_own_memory(monkeypatch):
    cupy = ModuleType("cupy")
    cupy.ndarray = CuPyArray
    cupy.from_dlpack = lambda x: CuPyArray(torch.utils.dlpack.from_dlpack(x))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.delitem(sys.modules, "lrqmm.products.backends.cupy", raising=False)
    a, b = (torch.randint(-128, 128, s, dtype=torch.int8) for s in ((5, 300), (300, 7)))
    with pytest.raises(lrqmm.Unsupported, match="CuPy arrays need a torch with CUDA"):
        fused._tensor(CuPyArray(a))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    backend = importlib.import_module("lrqmm.products.backends.cupy")
    product = backend.integer_matmul(CuPyArray(a), CuPyArray(b))
    assert isinstance(product, CuPyArray)
    assert torch.equal(product.tensor, a.int() @ b.int())
    assert fused._tensor(CuPyArray(a)).data_ptr() == a.data_ptr()
    assert fused._as(CuPyArray(a), b).tensor.data_ptr() == b.data_ptr()
    monkeypatch.delitem(sys.modules, "lrqmm.products.backends.cupy")


def test_the_route_names_the_kernels(on_cuda):
    own = lrqmm.get_method("direct", execution="fused")
    route = own.integer_route(on_cuda.up(np.ones((2, 2), np.float32)))
    assert route.endswith(f"fused passes in {on_cuda.kernels.PASSES}")
    if on_cuda.kernels is cuda:
        assert route.startswith("Triton (int8 tl.dot, int32 sums), ")


def test_thin_products_get_thin_tiles():
    wide, thin_ones = triton_products.WIDE, triton_products.THIN
    configs = [triton.Config(dict(BLOCK_M=m, BLOCK_N=n)) for m, n, *_ in wide + thin_ones]
    for M, N, expected in ((1, 5000, thin_ones), (700, 64, thin_ones), (65, 5000, wide)):
        found = triton_products._fitting(configs, {"M": M, "N": N}, num_warps=4)
        sizes = [(c.kwargs["BLOCK_M"], c.kwargs["BLOCK_N"]) for c in found]
        assert sizes == [(m, n) for m, n, *_ in expected]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("shape", [(3, 40), (2, 1024), (2, 1500), (1, 9000), (2, 0), (700,)])
def test_packing_is_the_plain_one(bits, shape):
    low = -(2 ** (bits - 1))
    codes = np.random.default_rng(bits).integers(low, -low, shape).astype(np.int8)
    on_device = torch.from_numpy(codes).to(DEVICE)
    packed, fits = packing_triton.pack(on_device, bits)
    assert fits
    np.testing.assert_array_equal(packed.cpu().numpy(), packing.pack_plainly(codes, bits)[0])
    found = packing_triton.unpack(packed, bits, shape[-1])
    np.testing.assert_array_equal(found.cpu().numpy(), codes)
    if bits < 8 and codes.size:
        codes[..., -1] = -low
        assert not packing_triton.pack(torch.from_numpy(codes).to(DEVICE), bits)[1]


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from lrqmm.fused import triton_products, triton_quantize
from lrqmm.products.packing import triton_kernels as packing_triton

POINTERS = {
    "X": "*fp32", "Y": "*fp32", "s": "*fp32", "t": "*fp32", "low": "*fp32", "high": "*fp32",
    "scales": "*fp32",
    "a": "*i8", "b": "*i8", "T": "*i8", "R": "*i8", "codes": "*i8", "digits": "*i8",
}

def build(kernel, C=None, **constants):
    types = {name: POINTERS.get(name, "i32") for name in kernel.arg_names}
    types.update({"C": C} if C else {}, **dict.fromkeys(constants, "constexpr"))
    source = triton.compiler.ASTSource(kernel, types, constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]

tile = dict(BLOCK_ROWS=16, BLOCK_K=64)
for mode in ("nearest", "truncate", "signed"):
    levels = dict(TOP=7, MODE=mode)
    build(triton_quantize._quantize_rows, **levels, **tile, stride_k=1)
    build(triton_quantize._quantize_tiles, **levels, **tile, stride_row=1)
build(triton_quantize._quantize_rows, TOP=7, MODE="nearest", digits=None, **tile)
build(triton_quantize._extremes, **tile, stride_row=1)
tile = dict(BLOCK_M=64, BLOCK_N=64, BLOCK_K=64, stride_ak=1, stride_bk=1)
assert "wgmma" in build(triton_products._int_product.fn, "*i32", **tile)
assert "wgmma" in build(triton_products._scaled_product.fn, "*fp32", **tile, BLOCK_Q=16)
build(triton_products._scaled_product.fn, "*fp32", **tile, BLOCK_Q=16, X=None, Y=None)
thin = dict(PIECE=1024, BLOCK_W=32, BLOCK_K=64, BLOCK_ROWS=64)
assert "mma" in build(triton_products._thin_product.fn, "*i32", **thin, stride_k=1)
POINTERS |= {"packed": "*u8", "fits": "*i32"}
for bits in range(1, 9):
    build(packing_triton._pack, bits=bits, width=64, many=16)
    build(packing_triton._unpack, bits=bits, width=64, many=16)
"""


@pytest.mark.skipif(not HOPPER, reason="no Triton for this system")
def test_every_kernel_compiles_for_hopper(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
