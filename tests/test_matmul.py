"""The public face: what goes in, what comes out, and what every mistake is told."""

import numpy as np
import pytest
import torch
from oracle import LIBRARIES, PEERS, distance, to, to_numpy

import lrqmm

pytestmark = pytest.mark.filterwarnings("error")  # neither answers nor errors come with warnings

COARSE = (
    "binary_mean", "e4m3", "e5m2", "lbw", "mxfp4", "mxfp6", "mxfp8", "nvfp4", "twn",
    *("beta", "caldera", "dsvd", "lplr", "lplr_svd", "lramm", "naive", "sigma_delta", "sign"),
)  # fmt: skip
"""Methods that keep fewer bits than eight, or not all directions."""
METHODS = [
    name
    for name in lrqmm.list_methods()
    if name not in ("bf16", "bf16_f32", "fp8", "fp8_f32", "tf32", *PEERS)
]


@pytest.fixture(params=LIBRARIES)
def library(request):
    return request.param


def uniform(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).random(shape, np.float32)


# dtypes

DTYPES = {
    "numpy": ["float16", "float32", "float64"],
    "torch": ["float16", "bfloat16", "float32", "float64"],
    "array_api_strict": ["float32", "float64"],
}


def cast(X, library, dtype):
    if library == "torch":
        return torch.from_numpy(X).to(getattr(torch, dtype))
    return to(library, X.astype(dtype))


def dtype_name(X):
    return str(X.dtype).removeprefix("torch.").removeprefix("array_api_strict.")


@pytest.mark.parametrize(
    ("library", "left", "right"),
    [(lib, a, b) for lib, dtypes in DTYPES.items() for a in dtypes for b in dtypes],
)
@pytest.mark.parametrize("method", ["lrqmm", "sgemm"])
def test_dtypes_come_back_as_they_went_in(method, library, left, right):
    A, B = uniform(20, 40), uniform(40, 30)
    C = lrqmm.matmul(cast(A, library, left), cast(B, library, right), method=method)
    both = {left, right}
    expected = left if left == right else "float64" if "float64" in both else "float32"
    assert dtype_name(C) == expected
    assert type(C) is type(cast(A, library, left))
    rounding = {"float16": 2e-3, "bfloat16": 1e-2}
    loss = 2e-3 + sum(rounding.get(dtype, 0) for dtype in (left, right, expected))
    C = C.float() if library == "torch" else C
    assert distance(C, A.astype(np.float64) @ B) < loss


def test_float64_is_computed_in_float32():
    A, B = uniform(20, 40).astype(float), uniform(40, 30).astype(float)
    C = lrqmm.matmul(A, B, method="sgemm")
    np.testing.assert_array_equal(C, A.astype(np.float32) @ B.astype(np.float32))


# batches and shapes


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), ()),
        ((), (3,)),
        ((3,), (3,)),
        ((1,), (3,)),
        ((2, 1), (3,)),
        ((2, 3), (2, 3)),
        ((3,), (2, 1)),
        ((1, 1), ()),
        ((0,), ()),
        ((0,), (1,)),
        ((2, 0), (1,)),
    ],
)
def test_batches_broadcast_as_in_numpy(library, left, right):
    A, B = uniform(*left, 5, 6), uniform(*right, 6, 4)
    method = lrqmm.get_method("lrqmm", bits=4, rounding="truncate", rank=2)
    expected = np.matmul(A, B)
    C = to_numpy(method.matmul(to(library, A), to(library, B)))
    assert C.shape == expected.shape
    assert C.dtype == np.float32
    batch = expected.shape[:-2]
    A, B = np.broadcast_to(A, (*batch, 5, 6)), np.broadcast_to(B, (*batch, 6, 4))
    for index in np.ndindex(batch):  # every matrix is quantised and compensated by itself
        single = method.matmul(to(library, A[index].copy()), to(library, B[index].copy()))
        np.testing.assert_array_equal(C[index], to_numpy(single))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "shape", [(1, 20, 30), (20, 30, 1), (1, 30, 1), (20, 1, 30), (1, 1, 30), (20, 1, 1), (1, 1, 1)]
)
def test_single_rows_and_columns(library, method, shape):
    m, k, n = shape
    A, B = uniform(m, k), uniform(k, n)
    exact = A.astype(np.float64) @ B
    for left in (A, A.T.copy().T):  # an axis of length one may have any stride
        for right in (B, B.T.copy().T):
            C = lrqmm.matmul(to(library, left), to(library, right), method=method)
            assert distance(C, exact) < (0.5 if method in COARSE else 0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((0, 4), (4, 3)),
        ((2, 0), (0, 3)),
        ((2, 4), (4, 0)),
        ((0, 0), (0, 0)),
        ((0, 2, 4), (4, 3)),
        ((2, 4), (0, 4, 3)),
        ((5, 2, 0), (5, 0, 3)),
    ],
)
def test_empty_operands(library, method, left, right):
    A, B = np.ones(left, np.float32), np.ones(right, np.float32)
    built = lrqmm.get_method(method)
    expected = np.matmul(A, B)
    A, B = to(library, A), to(library, B)
    for C in (built.matmul(A, B), built.matmul(A, built.prepare(B))):
        assert dtype_name(C) == "float32"
        np.testing.assert_array_equal(to_numpy(C), expected)


@pytest.mark.parametrize("method", METHODS)
def test_layout_does_not_matter(library, method):
    A, B = uniform(12, 33), uniform(33, 14)
    built = lrqmm.get_method(method)
    expected = to_numpy(built.matmul(to(library, A), to(library, B)))
    wide = np.full((24, 99), 7, np.float32)
    wide[::2, ::3] = A
    views = [(wide[::2, ::3], B), (np.asfortranarray(A), B.T.copy().T)]
    if library == "numpy":
        views.append((A[::-1, ::-1].copy()[::-1, ::-1], B[:, ::-1].copy()[:, ::-1]))
    for left, right in views:
        np.testing.assert_array_equal(left, A)
        found = built.matmul(to(library, left), to(library, right))
        # a square random sketch magnifies the last bits of the SVD
        assert distance(found, expected) < (1e-5 if method == "lplr_svd" else 1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("left", "right"), [(0, 0), (0, 1), (1, 0)])
def test_zero_matrices(library, method, left, right):
    A, B = left * uniform(9, 8), right * uniform(8, 7)
    C = to_numpy(lrqmm.matmul(to(library, A), to(library, B), method=method))
    np.testing.assert_array_equal(C, np.zeros((9, 7)))


@pytest.mark.parametrize("method", METHODS)
def test_huge_and_tiny_values_are_right_or_refused(method):
    A = np.array([[3.4e38, -3.4e38, 1.6e38], [1.0, 2.0, 3.0]], np.float32)
    B = np.array([[1e-33, 2e-33], [2e-33, 1e-33], [3e-33, 1e-33]], np.float32)
    settings = [{}]
    if "zero_point" in lrqmm.get_method(method).parameters:
        settings = [{"zero_point": zero_point} for zero_point in (None, "integer", "float")]
    for given in settings:
        try:
            C = lrqmm.matmul(A, B, method=method, **given)
        except ValueError as refusal:
            assert "A holds" in str(refusal)  # noqa: PT017
        else:
            assert distance(C, A.astype(np.float64) @ B) < 0.05


# prepared operands


@pytest.mark.parametrize("method", METHODS)
def test_prepare_once_multiply_often(library, method):
    built = lrqmm.get_method(method)
    B = to(library, uniform(3, 30, 20))
    prepared = built.prepare(B)
    for seed in range(3):
        A = to(library, uniform(3, 10, 30, seed=seed))
        found, expected = built.matmul(A, prepared), built.matmul(A, B)
        np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))


def test_prepared_shows_what_it_is():
    prepared = lrqmm.get_method("direct", bits=3).prepare(uniform(4, 5))
    assert repr(prepared) == "Prepared(method=get_method('direct', bits=3), B=<4 x 5 float32>)"


def test_prepared_of_another_method_is_refused():
    A, B = uniform(4, 5), uniform(5, 3)
    six, four = lrqmm.get_method("direct", bits=6), lrqmm.get_method("direct", bits=4)
    said = r"B was prepared for .*direct', bits=4.*allowed: .*direct', bits=6"
    with pytest.raises(TypeError, match=said):
        six.matmul(A, four.prepare(B))


def test_prepared_operands_are_checked_like_others():
    method = lrqmm.get_method("lrqmm", rank=5)
    prepared = method.prepare(uniform(5, 5))
    for A, message in (
        (uniform(4, 6), r"A has shape 4 x 6 and B 5 x 5"),
        (np.full((4, 5), np.nan, np.float32), r"A holds nan at \(0, 0\)"),
        (uniform(2, 4, 6), r"A has shape 2 x 4 x 6"),
    ):
        with pytest.raises(ValueError, match=message):
            method.matmul(A, prepared)
    with pytest.raises(TypeError, match=r"A is of torch and B of numpy"):
        method.matmul(torch.ones(4, 5), prepared)
    with pytest.raises(ValueError, match=r"rank is 5; allowed: 0 to .* = 2"):
        method.matmul(uniform(1, 2), method.prepare(uniform(2, 9)))


# purity


@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_never_modified(library, method):
    A, B = uniform(2, 9, 12), uniform(12, 8)
    kept = A.copy(), B.copy()
    if library == "numpy":
        A.flags.writeable = B.flags.writeable = False
    built = lrqmm.get_method(method)
    left, right = to(library, A), to(library, B)
    built.matmul(left, right)
    built.matmul(left, built.prepare(right))
    for X, before in zip((left, right), kept, strict=True):
        np.testing.assert_array_equal(to_numpy(X), before)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_call_gives_the_same_bits(library, method):
    A, B = to(library, uniform(40, 50)), to(library, uniform(50, 30))
    first, second = (to_numpy(lrqmm.matmul(A, B, method=method)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("method", ["lrqmm", "lrqmm_aware"])
def test_another_seed_gives_other_bits(method):
    A, B = uniform(40, 50), uniform(50, 30)
    how = dict(method=method, bits=4, rank=3)
    assert (lrqmm.matmul(A, B, seed=0, **how) != lrqmm.matmul(A, B, seed=1, **how)).any()
    np.testing.assert_array_equal(lrqmm.matmul(A, B, **how), lrqmm.matmul(A, B, seed=0, **how))


@pytest.mark.parametrize("method", METHODS)
def test_tensors_that_require_a_gradient(method):
    A, B = (torch.from_numpy(X) for X in (uniform(9, 12), uniform(12, 8)))
    expected = lrqmm.matmul(A, B, method=method)
    C = lrqmm.matmul(A.clone().requires_grad_(), torch.nn.Parameter(B), method=method)
    assert not C.requires_grad
    torch.testing.assert_close(C, expected, rtol=0, atol=0)


# mistakes


def spoiled(value, where, *shape, dtype=np.float32):
    X = np.ones(shape, dtype)
    X[where] = value
    return X


ONES = np.ones((4, 5), np.float32), np.ones((5, 3), np.float32)
FLOATS = "allowed: float16, bfloat16, float32, float64"
FINITE = "allowed: finite values"


@pytest.mark.parametrize(
    ("A", "B", "error", "message"),
    [
        (spoiled(np.nan, (1, 2), 4, 5), ONES[1], ValueError, rf"A holds nan at \(1, 2\); {FINITE}"),
        (ONES[0], spoiled(np.inf, (4, 0), 5, 3), ValueError, rf"B holds inf at \(4, 0\); {FINITE}"),
        (
            ONES[0],
            spoiled(-np.inf, (1, 0, 2), 2, 5, 3),
            ValueError,
            rf"B holds -inf at \(1, 0, 2\); {FINITE}",
        ),
        (
            spoiled(1e300, (3, 4), 4, 5, dtype=float),
            ONES[1],
            ValueError,
            rf"A holds 1e\+300 at \(3, 4\); {FINITE}",
        ),
        (np.ones(5, np.float32), ONES[1], ValueError, "A has shape 5; allowed: at least two dim"),
        (ONES[0], np.float32(1), ValueError, r"B has shape \(\); allowed: at least two dim"),
        (ONES[0], ONES[0], ValueError, "A has shape 4 x 5 and B 4 x 5; allowed: as many columns"),
        (
            np.ones((2, 4, 5), np.float32),
            np.ones((3, 5, 3), np.float32),
            ValueError,
            r"\(2,\) of A and \(3,\) of B do not broadcast",
        ),
        (np.ones((4, 5), int), ONES[1], TypeError, f"A has dtype int64; {FLOATS}"),
        (ONES[0], np.ones((5, 3), complex), TypeError, f"B has dtype complex128; {FLOATS}"),
        (np.ones((4, 5), bool), ONES[1], TypeError, f"A has dtype bool; {FLOATS}"),
        (torch.ones(4, 5).int(), torch.ones(5, 3), TypeError, "A has dtype torch.int32; allowed"),
        ([[1.0, 2.0]], ONES[1], TypeError, "A is a list; allowed: a NumPy, torch or CuPy array"),
        (ONES[0], None, TypeError, "B is a NoneType; allowed: a NumPy, torch or CuPy array"),
        (ONES[0], 2.0, TypeError, "B is a float; allowed"),
        (ONES[0], torch.ones(5, 3), TypeError, "A is of numpy and B of torch; allowed: both of th"),
        (torch.ones(4, 5), ONES[1], TypeError, "A is of torch and B of numpy; allowed: both of th"),
        (
            torch.full((4, 5), torch.nan, requires_grad=True),
            torch.ones(5, 3),
            ValueError,
            r"A holds nan at \(0, 0\)",
        ),
    ],
)
def test_wrong_operands(A, B, error, message):
    for method in ("lrqmm", "sgemm"):
        with pytest.raises(error, match=message):
            lrqmm.matmul(A, B, method=method)


def test_prepare_checks_its_operand():
    method = lrqmm.get_method("direct")
    for B, error, message in (
        (spoiled(np.nan, (0, 1), 5, 3), ValueError, r"B holds nan at \(0, 1\)"),
        (np.ones(3, np.float32), ValueError, "B has shape 3"),
        (np.ones((3, 3), int), TypeError, "B has dtype int64"),
        ("B", TypeError, "B is a str"),
    ):
        with pytest.raises(error, match=message):
            method.prepare(B)


def test_check_finite_can_be_left_out():
    A = spoiled(np.nan, (1, 2), 4, 5)
    assert lrqmm.get_method("sgemm").matmul(A, ONES[1], check_finite=False).shape == (4, 3)
    A, B = uniform(4, 5), uniform(5, 3)
    method = lrqmm.get_method("lrqmm", rank=1)
    found = method.matmul(A, method.prepare(B, check_finite=False), check_finite=False)
    np.testing.assert_array_equal(found, method.matmul(A, B))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"rank": -1}, ValueError, "rank is -1; allowed: an integer of at least 0"),
        (
            {"rank": 5},
            ValueError,
            r"rank is 5; allowed: 0 to max\(min\(m, k\), min\(k, n\)\) = 4 fo",
        ),
        ({"rank": 2.0}, TypeError, "rank is 2.0; allowed: an integer of at least 0"),
        ({"rank": True}, TypeError, "rank is True; allowed: an integer"),
        ({"bits": 9}, ValueError, "bits is 9; allowed: an integer 2 to 8"),
        ({"bits": 1}, ValueError, "bits is 1; allowed: an integer 2 to 8"),
        ({"bits": True}, TypeError, "bits is True; allowed: an integer 2 to 8"),
        ({"bits": "4"}, TypeError, "bits is '4'; allowed: an integer 2 to 8"),
        ({"bits": None}, TypeError, "bits is None; allowed: an integer 2 to 8"),
        (
            {"rnk": 1},
            TypeError,
            r"'lrqmm' has no parameter 'rnk' \(did you mean 'rank'\?\); allowe",
        ),
        (
            {"rounding": "nearst"},
            ValueError,
            r"rounding is 'nearst' \(did you mean 'nearest'\?\); a",
        ),
        ({"terms": "all"}, ValueError, "terms is 'all'; allowed: 'first', 'full', 'exact'"),
        (
            {"sketch": "ones"},
            ValueError,
            r"sketch is 'ones'.*; allowed: 'ones\+gaussian', 'gaussian'",
        ),
        ({"granularity": "row"}, ValueError, "granularity is 'row'; allowed: 'vector', 'tensor'"),
        ({"granularity": "group:0"}, ValueError, "granularity is 'group:0'; allowed: .*at least 1"),
        ({"zero_point": True}, ValueError, "zero_point is True; allowed: None, 'integer', 'float'"),
        ({"sides": "ba"}, ValueError, "sides is 'ba'.*; allowed: 'ab', 'a', 'b'"),
        (
            {"factor_dtype": "int4"},
            ValueError,
            "factor_dtype is 'int4'.*; allowed: 'float32', 'int8'",
        ),
        ({"oversampling": -1}, ValueError, "oversampling is -1; allowed: an integer of at least 0"),
        ({"power_iterations": -1}, ValueError, "power_iterations is -1; allowed: an integer of at"),
        ({"seed": -1}, ValueError, "seed is -1; allowed: an integer of at least 0"),
        (
            {"method": "lrqm"},
            ValueError,
            r"method is 'lrqm' \(did you mean 'lrqmm'\?\); allowed: 'affine",
        ),
        (
            {"method": "direct", "rank": 1},
            TypeError,
            "'direct' has no parameter 'rank'; allowed: bits",
        ),
        (
            {"method": "sgemm", "bits": 8},
            TypeError,
            "'sgemm' has no parameter 'bits'; allowed: none",
        ),
        (
            {"calibration": ONES[0]},
            ValueError,
            "calibration is given, but method 'lrqmm' takes none",
        ),
        (
            {"method": "sgemm", "calibration": ONES[0]},
            ValueError,
            "calibration is given, but method 'sgemm' takes none",
        ),
    ],
    ids=str,
)
def test_wrong_parameters(given, error, message):
    with pytest.raises(error, match=message):
        lrqmm.matmul(*ONES, **given)


def test_calibration_is_refused_wherever_it_is_given():
    method = lrqmm.get_method("direct")
    prepared = method.prepare(ONES[1])
    with pytest.raises(ValueError, match="calibration is given, but method 'direct' takes none"):
        method.prepare(ONES[1], calibration=ONES[0])
    with pytest.raises(ValueError, match="calibration is given, but method 'direct' takes none"):
        method.matmul(ONES[0], prepared, calibration=ONES[0])


def test_parameters_are_all_listed():
    assert lrqmm.get_method("lrqmm", bits=4, rank=8).parameters == {
        "bits": 4,
        "bits_a": None,
        "zero_point_a": "same",
        "granularity": "vector",
        "rounding": "nearest",
        "levels": "odd",
        "zero_point": None,
        "rank": 8,
        "tolerance": None,
        "on_unreachable": "warn",
        "terms": "full",
        "oversampling": 8,
        "power_iterations": 1,
        "sketch": "ones+gaussian",
        "factor_dtype": "float32",
        "sides": "ab",
        "seed": 0,
        "execution": "plain",
    }
    assert lrqmm.get_method("lrqmm").parameters["bits"] == 8
    assert lrqmm.get_method("lrqmm").parameters["rank"] is None
    assert lrqmm.get_method("sgemm").parameters == {}
