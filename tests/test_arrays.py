"""Arrays of any make multiply as plain ones do, or are refused in words."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import lrqmm
from lrqmm.products.packing import pack, unpack

RNG = np.random.default_rng(5)
A, B = RNG.random((12, 20), np.float32), RNG.standard_normal((20, 9), np.float32)
METHODS = [
    (name, {"execution": execution})
    for name in ("direct", "mean_fix", "lrqmm", "lrqmm_aware")
    for execution in ("plain", "fused")
] + [("sgemm", {}), ("two_slice", {}), ("hadamard", {}), ("mxfp8", {})]
IDS = [" ".join([name, *params.values()]) for name, params in METHODS]


def packed_rows(X):
    """A field of a record: its strides are no multiples of an element's size."""
    record = np.zeros(X.shape, dtype=[("flag", np.int8), ("x", X.dtype)])
    record["x"] = X
    return record["x"]


def unaligned(X):
    memory = np.zeros(X.nbytes + 1, np.uint8)
    view = memory[1:].view(X.dtype).reshape(X.shape)
    view[...] = X
    return view


def locked(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def mapped(X, folder):
    path = folder / f"{X.shape[0]}.bin"
    X.tofile(path)
    return np.memmap(path, X.dtype, "r", shape=X.shape)


NUMPY = {
    "rows backwards": lambda X: X[::-1].copy()[::-1],
    "columns backwards": lambda X: X[:, ::-1].copy()[:, ::-1],
    "both backwards": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "every other element": lambda X: np.repeat(np.repeat(X, 2, 0), 3, 1)[::2, ::3],
    "column-major": np.asfortranarray,
    "column-major, backwards": lambda X: np.asfortranarray(X[:, ::-1])[:, ::-1],
    "packed record": packed_rows,
    "unaligned": unaligned,
    "other byte order": lambda X: X.astype(X.dtype.newbyteorder("S")),
    "np.matrix": np.asmatrix,
    "record array": lambda X: X.view(np.recarray),
    "read-only": locked,
    "chararray's cousin": lambda X: X.view(type("Mine", (np.ndarray,), {})),
    "inside a larger one": lambda X: np.pad(X, 3)[3:-3, 3:-3],
    "float64": lambda X: X.astype(np.float64),
    "float64, other byte order": lambda X: X.astype(">f8"),
}
TORCH = {
    "parameter": lambda X: nn.Parameter(X.clone()),
    "with a gradient": lambda X: X.clone().requires_grad_() * 1,
    "negated view": lambda X: torch.complex(torch.zeros_like(X), -X).conj().imag,
    "column-major": lambda X: X.T.contiguous().T,
    "every other element": lambda X: X.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3],
    "flipped twice": lambda X: X.flip(0).flip(0),
    "a subclass": lambda X: X.as_subclass(type("Mine", (torch.Tensor,), {})),
    "of inference mode": lambda X: in_inference_mode(X),
    "in shared memory": lambda X: X.clone().share_memory_(),
    "inside a larger one": lambda X: nn.functional.pad(X, (3, 3, 3, 3))[3:-3, 3:-3],
}


@torch.inference_mode()
def in_inference_mode(X):
    return X.clone()


@pytest.mark.parametrize("make", NUMPY)
@pytest.mark.parametrize(("name", "params"), METHODS, ids=IDS)
def test_numpy_arrays_of_any_make_multiply_as_plain_ones_do(name, params, make):
    method, turned = lrqmm.get_method(name, **params), NUMPY[make]
    usual = method.matmul(A, B)
    C = method.matmul(turned(A), turned(B))
    assert type(C) is np.ndarray
    assert C.dtype == (np.float64 if "float64" in make else np.float32)
    np.testing.assert_array_equal(C.astype(np.float32), usual)
    np.testing.assert_array_equal(method.matmul(A, method.prepare(turned(B))), usual)


@pytest.mark.parametrize("make", TORCH)
@pytest.mark.parametrize(("name", "params"), METHODS, ids=IDS)
def test_tensors_of_any_make_multiply_as_plain_ones_do(name, params, make):
    method, turned = lrqmm.get_method(name, **params), TORCH[make]
    left, right = torch.from_numpy(A), torch.from_numpy(B)
    C = method.matmul(turned(left), turned(right))
    assert type(C) is torch.Tensor
    assert not C.requires_grad
    usual = method.matmul(left, right)
    # on some processors a float product of another layout is summed in another order
    torch.testing.assert_close(C, usual, rtol=0, atol=1e-6 * float(usual.abs().max()))


@pytest.mark.parametrize("execution", ["plain", "fused"])
def test_rows_that_are_one_and_the_same_multiply(execution):
    wide = np.broadcast_to(A[:1], (12, 20))
    usual = lrqmm.matmul(wide.copy(), B, "direct", execution=execution)
    np.testing.assert_array_equal(lrqmm.matmul(wide, B, "direct", execution=execution), usual)
    narrow = np.broadcast_to(B[:, :1], (20, 9))
    usual = lrqmm.matmul(A, narrow.copy(), "direct", execution=execution)
    np.testing.assert_array_equal(lrqmm.matmul(A, narrow, "direct", execution=execution), usual)
    windows = np.lib.stride_tricks.sliding_window_view(np.arange(31, dtype=np.float32), 20)
    usual = lrqmm.matmul(windows.copy(), B, "direct", execution=execution)
    np.testing.assert_array_equal(lrqmm.matmul(windows, B, "direct", execution=execution), usual)


def test_a_memory_map_is_multiplied_by_the_method_that_was_asked_for(tmp_path):
    left, right = mapped(A, tmp_path), mapped(B, tmp_path)
    for name, params in (("hadamard", {"bits": 4}), ("lrqmm_aware", {"rank": 4}), ("sign", {})):
        C = lrqmm.matmul(left, right, name, **params)
        np.testing.assert_array_equal(C, lrqmm.matmul(A, B, name, **params))
    tiled = lrqmm.matmul(left, right, "direct", memory_limit=1 << 20)
    np.testing.assert_allclose(tiled, lrqmm.matmul(A, B, "direct"), rtol=1e-6)


def test_advice_takes_arrays_of_any_make():
    left, right = RNG.random((40, 30), np.float32), RNG.random((30, 20), np.float32)
    turned = left[::-1, ::-1]
    table = lrqmm.advise(turned, right.astype(">f4"), max_error=0.5, seconds=0.01).table
    plain = lrqmm.advise(turned.copy(), right, max_error=0.5, seconds=0.01).table

    def errors(table):
        return {
            (row["method"], str(row["parameters"])): row["error"] for _, row in table.iterrows()
        }

    assert errors(table) == errors(plain)


X, Y = torch.from_numpy(A), torch.from_numpy(B)
REFUSED = {  # operands, and what their refusal says
    "masked array": (lambda: (np.ma.masked_less(A, 0.5), B), "masked"),
    "masked right": (lambda: (A, np.ma.array(B)), "masked"),
    "sparse": (lambda: (X.to_sparse(), Y), "sparse"),
    "sparse rows": (lambda: (X.to_sparse_csr(), Y), "sparse"),
    "nested": (lambda: (torch.nested.nested_tensor([X, X]), Y), "nested"),
    "meta": (lambda: (X.to("meta"), Y.to("meta")), "meta"),
    "quantised": (lambda: (torch.quantize_per_tensor(X, 0.1, 0, torch.qint8), Y), "quantized"),
    "list": (lambda: (A.tolist(), B), "list"),
    "integers": (lambda: (A.astype(np.int32), B), "int32"),
    "complex": (lambda: (A.astype(np.complex64), B), "complex64"),
    "objects": (lambda: (A.astype(object), B), "object"),
    "long doubles": (lambda: (A.astype(np.longdouble), B), "longdouble|float128"),
    "structured": (lambda: (np.zeros((2, 20), [("x", np.float32)]), B), "dtype"),
    "no width": (lambda: (np.zeros((2, 20), "V0"), B), "dtype"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("execution", ["plain", "fused"])
@pytest.mark.parametrize("make", REFUSED)
def test_what_holds_no_plain_memory_is_refused_in_words(make, execution):
    operands, words = REFUSED[make]
    left, right = operands()
    with pytest.raises(TypeError, match=words) as error:
        lrqmm.matmul(left, right, "direct", execution=execution)
    assert "allowed" in str(error.value)


def test_transforms_of_torch_func_are_refused_in_words():
    with pytest.raises(TypeError, match=r"torch\.func"):
        torch.func.vmap(lambda row: lrqmm.matmul(row[None], Y, "direct"))(X)


def test_classes_that_compute_by_themselves_are_refused_in_words():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.ones(3, 4))
    with pytest.raises(TypeError, match="FakeTensor"):
        lrqmm.matmul(fake, fake.T, "direct", execution="fused")


def outs():
    shared, W = torch.zeros(20, 20), np.zeros((20, 20), np.float32)
    eye, one = torch.eye(20), np.eye(20, dtype=np.float32)
    return {
        "A's memory": (shared, shared, eye, "shares memory with A"),
        "B's memory": (shared, eye, shared, "shares memory with B"),
        "a gradient": (torch.zeros(20, 20, requires_grad=True), eye, eye, "gradient"),
        "read-only": (locked(W), one, one, "read-only"),
        "NumPy, A's memory": (W, W.T, one, "shares memory with A"),
    }


@pytest.mark.parametrize("execution", ["plain", "fused"])
@pytest.mark.parametrize("case", outs())
def test_a_result_goes_into_memory_of_its_own_or_nowhere(case, execution):
    out, left, right, words = outs()[case]
    with pytest.raises(ValueError, match=words):
        lrqmm.matmul(left, right, "direct", execution=execution, out=out)


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
}


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize(("name", "params"), METHODS, ids=IDS)
def test_methods_and_what_they_prepared_multiply_alike_as_copies(name, params, copied):
    method = lrqmm.get_method(name, **params)
    prepared = method.prepare(B)
    usual = method.matmul(A, prepared)
    twin, again = COPIES[copied](method), COPIES[copied](prepared)
    assert twin == method
    assert hash(twin) == hash(method)
    for left, right in ((twin, prepared), (method, again), (twin, again), (again.method, again)):
        np.testing.assert_array_equal(left.matmul(A, right), usual)
    other = lrqmm.get_method("direct", bits=3)
    with pytest.raises(TypeError, match="prepared for"):
        other.matmul(A, again)


def test_packing_takes_codes_of_any_make():
    codes = RNG.integers(-4, 4, (7, 70)).astype(np.int8)
    packed = pack(codes, 3)
    for turned in (codes[::-1, ::-1].copy()[::-1, ::-1], np.asfortranarray(codes), locked(codes)):
        np.testing.assert_array_equal(pack(turned, 3), packed)
    backwards = packed[::-1].copy()[::-1]
    np.testing.assert_array_equal(unpack(backwards, 3, 70), codes)
