"""The fused execution against a float64 execution of the same algorithm, and its parts."""

import threading
import tracemalloc

import numpy as np
import oracle
import pytest
import torch

import lrqmm
from lrqmm.fused import LARGEST_K, cpu, passes, passes_numba
from lrqmm.fused.coded import UNIT
from lrqmm.fused.covered import COVERED
from lrqmm.products.lowrank import LEFT, RIGHT
from lrqmm.products.rsvd import sketch_numbers

METHODS = ("direct", "mean_fix", "lrqmm", "lrqmm_aware")


@pytest.fixture(params=["compiled", "numba"])
def implementation(request, monkeypatch):
    if request.param == "numba":
        monkeypatch.setattr(passes, "_library", lambda: None)
    elif passes.implementation() != "C++":
        pytest.skip("nothing compiled here")
    return request.param


def data(kind, shape, rng):
    X = rng.standard_normal(shape, dtype=np.float32)
    if kind == "uniform01":
        return rng.random(shape, dtype=np.float32)
    if kind == "relu":
        return np.maximum(X, 0)
    if kind == "lowrank":
        left, right = rng.standard_normal((shape[0], 20)), rng.standard_normal((20, shape[1]))
        return (left @ right + 0.04 * X).astype(np.float32)
    return X


# the algorithm in float64, on the codes that float32 arithmetic gives


ROUNDINGS = ("nearest", "truncate", "signed")


def encoded(X, bits, rounding):
    """Codes and scale a row, float32 arithmetic as documented, returned as float64."""
    top = np.float32(2 ** (bits - 1) - 1)
    largest = np.abs(X).max(axis=1)
    scale = largest / (top + 1 if rounding == "signed" else top)
    usable = scale >= np.float32(2.0**-126)
    scale = np.where(usable, scale, np.float32(0))
    with np.errstate(divide="ignore"):
        inverse = np.where(usable, np.float32(1) / scale, np.float32(0))
    if rounding == "nearest":
        codes = np.rint(X * inverse[:, None])
    elif rounding == "signed":
        sign = np.where(X.max(axis=1) > -X.min(axis=1), np.float32(-1), np.float32(1))
        codes = np.minimum(np.rint(X * (sign * inverse)[:, None]), top)
        scale = sign * scale
    else:
        codes = np.trunc(X * (inverse * np.float32(1 + 2.0**-22))[:, None])
    return codes.astype(np.float64), scale.astype(np.float64)


def encoded_affine(X, bits):
    """Codes less their zero point, and scale a row; float32 arithmetic as documented."""
    low, high = np.minimum(X.min(axis=1), 0), np.maximum(X.max(axis=1), 0)
    scale = (high - low) / np.float32(2**bits - 1)
    usable = scale >= np.float32(2.0**-126)
    with np.errstate(divide="ignore"):
        inverse = np.where(usable, np.float32(1) / scale, np.float32(0)).astype(np.float32)
    bottom = -(2 ** (bits - 1))
    zero = np.where(usable, np.rint(-low * inverse) + bottom, 0)[:, None]
    codes = np.clip(np.rint(X * inverse[:, None]) + zero, bottom, -bottom - 1)
    return (codes - zero).astype(np.float64), np.where(usable, scale, 0).astype(np.float64)


def basis(M, omega, q):
    Q = np.linalg.qr(M @ omega)[0]
    for _ in range(q):
        Q = np.linalg.qr(M @ np.linalg.qr(M.T @ Q)[0])[0]
    return Q


def dominant(Q, M, rank):
    U = np.linalg.svd(Q.T @ M, full_matrices=False)[0]
    return Q @ U[:, :rank] if Q.shape[1] > rank else Q


def float64(
    A, B, method, bits, rounding,
    rank=16, p=0, q=0, terms="full", sides="ab", bits_a=None, zero_point_a=None,
):  # fmt: skip
    if zero_point_a:
        codes, scale = encoded_affine(A, bits_a or bits)
    else:
        codes, scale = encoded(A, bits_a or bits, rounding)
    A, approx_A = A.astype(np.float64), scale[:, None] * codes
    codes, scale = encoded(B.T, bits, rounding)
    B, approx_B = B.astype(np.float64), (scale[:, None] * codes).T
    R_A, R_B = A - approx_A, B - approx_B
    L_A, L_B = np.zeros_like(A), np.zeros_like(B)
    if method == "mean_fix":
        L_A += R_A.mean(axis=1, keepdims=True)
        L_B += R_B.mean(axis=0, keepdims=True)
    elif method != "direct":
        for side, R, other in ((LEFT, R_A, B), (RIGHT, R_B.T, approx_A.T)):
            if "ab"[side] not in sides:
                continue
            r = min(rank, *R.shape)
            M = R if method == "lrqmm" else R @ other
            width = min(r + p, *R.shape, M.shape[1])
            omega = sketch_numbers(M.shape[1], width, "ones+sign", (0, side)).astype(np.float64)
            Q = dominant(basis(M, omega, q), M, r)
            if side == LEFT:
                L_A = Q @ (Q.T @ R)
            else:
                L_B = (Q @ (Q.T @ R)).T
    C = approx_A @ approx_B + approx_A @ L_B + L_A @ approx_B
    return C + L_A @ L_B if terms == "full" else C


def deviation(A, B, method, bits, rounding, **options):
    """‖C_fused - C_float64‖ over the direct error."""
    names = {"p": "oversampling", "q": "power_iterations"}
    given = {names.get(key, key): value for key, value in options.items()}
    if method.startswith("lrqmm"):
        given.setdefault("power_iterations", 0)
    given |= {"levels": "signed"} if rounding == "signed" else {"rounding": rounding}
    C = lrqmm.matmul(A, B, method, bits=bits, execution="fused", **given)
    left = {name: options.get(name) for name in ("bits_a", "zero_point_a")}
    direct = float64(A, B, "direct", bits, rounding, **left)
    expected = float64(A, B, method, bits, rounding, **options)
    error = np.linalg.norm(direct - oracle.product(A, B))
    return np.linalg.norm(oracle.to_numpy(C) - expected) / error


@pytest.mark.parametrize("seed", range(100))
def test_within_one_percent_of_a_float64_execution(seed):
    rng = np.random.default_rng(seed)
    m, k, n = (int(size) for size in rng.integers(1, 200, 3))
    if seed % 10 == 0:
        m = 1
    if seed % 10 == 5:
        m, k, n = (8 * size + 8 for size in (m // 4, k // 4, n // 4))
    limit = max(min(m, k), min(k, n))
    rank = int(rng.integers(1, max(limit // 4, 1) + 1))
    kind = ("normal", "uniform01", "relu")[seed % 3]
    A, B = data(kind, (m, k), rng), data(kind, (k, n), rng)
    if k == 1:  # quantisation is exact there, up to rounding
        A, B = data(kind, (m, 2), rng), data(kind, (2, n), rng)
    bits, rounding = int(rng.integers(2, 9)), ROUNDINGS[int(rng.integers(3))]
    assert deviation(A, B, "direct", bits, rounding) < 1e-4
    assert deviation(A, B, "mean_fix", bits, rounding) < 0.01
    assert deviation(A, B, "lrqmm", bits, rounding, rank=rank) < 0.01
    aware = max(1, min(rank, *(size // 4 for size in (m, k, n))))  # a product's range is narrower
    assert deviation(A, B, "lrqmm_aware", bits, rounding, rank=aware) < 0.01


@pytest.mark.parametrize("method", ["lrqmm", "lrqmm_aware"])
@pytest.mark.parametrize(
    "options",
    [
        dict(q=1),
        dict(p=5),
        dict(p=4, q=2),
        dict(terms="first"),
        dict(sides="a"),
        dict(sides="b"),
        dict(bits_a=6),
        dict(zero_point_a="integer"),
        dict(zero_point_a="integer", q=1, bits_a=3),
        dict(zero_point_a="integer", terms="first"),
        dict(zero_point_a="integer", sides="b"),
    ],
    ids=str,
)
@pytest.mark.parametrize("rounding", ["nearest", "signed"])
def test_every_option_follows_the_float64_execution(method, options, rounding):
    rng = np.random.default_rng(3)
    A, B = data("lowrank", (150, 131), rng), data("lowrank", (131, 97), rng)
    limit = 0.015 if "p" in options else 0.01  # which directions are cut is a close call
    assert deviation(A, B, method, 4, rounding, rank=12, **options) < limit


@pytest.mark.parametrize("seed", range(30))
def test_zero_points_follow_the_float64_execution(seed, implementation):
    rng = np.random.default_rng(seed)
    m, k, n = (int(size) for size in rng.integers(1, 150, 3))
    k = max(k, 2)
    kind = ("normal", "uniform01", "relu")[seed % 3]
    A, B = data(kind, (m, k), rng), data("normal", (k, n), rng)
    A -= np.float32(0.3) * rng.random((m, 1), dtype=np.float32)
    if seed % 2:
        A = np.asfortranarray(A)
    if seed % 5 == 0:
        A[0] = 0
        A[-1] = -np.abs(A[-1])
    given = dict(bits=int(rng.integers(2, 9)), rounding="nearest", zero_point_a="integer")
    assert deviation(A, B, "direct", **given) < 1e-4
    assert deviation(A, B, "mean_fix", **given) < 0.01
    rank = max(1, min(m, k, n) // 4)
    for method in ("lrqmm", "lrqmm_aware"):
        assert deviation(A, B, method, rank=rank, **given) < 0.01


def test_signed_levels_with_zero_points_are_those_of_the_right_operand():
    rng = np.random.default_rng(8)
    A, B = data("relu", (40, 70), rng), data("normal", (70, 33), rng)
    given = dict(bits=4, zero_point_a="integer", levels="signed")
    plain = lrqmm.matmul(A, B, "direct", **given)
    np.testing.assert_allclose(
        lrqmm.matmul(A, B, "direct", execution="fused", **given), plain, rtol=1e-4, atol=1e-4
    )


def test_the_largest_sums_of_signed_codes_are_exact():
    for k in (3, 1000, LARGEST_K):
        ones = np.ones((2, k), np.float32)
        C = lrqmm.matmul(ones, ones.T, "direct", levels="signed", execution="fused")
        np.testing.assert_allclose(C, np.float32(k), rtol=1e-6)


def test_zero_points_win_on_one_sided_activations_as_the_plain_code_does():
    rng = np.random.default_rng(7)
    A, B = data("relu", (300, 257), rng), data("normal", (257, 129), rng)
    exact = oracle.product(A, B)
    for method, options in (("direct", {}), ("lrqmm_aware", dict(rank=12, power_iterations=1))):
        given = dict(bits=4, zero_point_a="integer", **options)
        plain, fast, symmetric = (
            oracle.distance(lrqmm.matmul(A, B, method, **settings), exact)
            for settings in (
                given,
                {**given, "execution": "fused"},
                {**given, "zero_point_a": "same", "execution": "fused"},
            )
        )
        assert abs(fast - plain) < 0.02 * plain
        assert fast < 0.8 * symmetric


def test_zero_points_with_truncation_are_refused():
    with pytest.raises(ValueError, match="allowed: 'nearest' with zero points"):
        lrqmm.get_method("direct", zero_point_a="integer", rounding="truncate", execution="fused")


@pytest.mark.parametrize(("bits", "limit"), [(2, 0.03), (3, 0.015), (4, 0.01), (8, 0.01)])
def test_low_rank_data_truncated_to_few_bits_costs_a_little_more(bits, limit):
    # nearly all of the matrix is residual then, and the thin codes' own rounding shows
    rng = np.random.default_rng(5)
    A, B = data("lowrank", (300, 257), rng), data("lowrank", (257, 129), rng)
    for method in ("lrqmm", "lrqmm_aware"):
        assert deviation(A, B, method, bits, "truncate", rank=16) < limit


def test_meets_the_accuracy_bars():
    n = 1024
    for kind, rounding, method, rank, gain in (
        ("uniform01", "truncate", "lrqmm", 1, 100),
        ("uniform01", "truncate", "lrqmm_aware", 1, 100),
        ("lowrank", "nearest", "lrqmm_aware", 32, 10),
    ):
        rng = np.random.default_rng(0)
        A, B = data(kind, (n, n), rng), data(kind, (n, n), rng)
        exact = oracle.product(A, B)
        given = dict(bits=4, rounding=rounding, execution="fused")
        direct = oracle.distance(lrqmm.matmul(A, B, "direct", **given), exact)
        own = oracle.distance(lrqmm.matmul(A, B, method, rank=rank, **given), exact)
        assert direct / own > gain


# operands, layouts, results


@pytest.mark.parametrize("method", METHODS)
def test_layouts_and_libraries_agree(method, implementation):
    rng = np.random.default_rng(1)
    A, B = data("normal", (70, 53), rng), data("normal", (53, 91), rng)
    fused = lrqmm.get_method(method, bits=5, execution="fused")
    expected = fused.matmul(A, B)
    assert expected.dtype == np.float32
    layouts = (np.ascontiguousarray, np.asfortranarray, lambda X: np.repeat(X, 2, axis=1)[:, ::2])
    for change_A in layouts:
        for change_B in layouts:
            own = fused.matmul(change_A(A), change_B(B))
            assert oracle.distance(own, expected) < 1e-4
            tensors = torch.from_numpy(change_A(A)), torch.from_numpy(change_B(B))
            C = fused.matmul(*tensors)
            assert isinstance(C, torch.Tensor)
            assert np.array_equal(C.numpy(), own)


@pytest.mark.parametrize("method", METHODS)
def test_prepared_batched_and_out_agree(method):
    rng = np.random.default_rng(2)
    A, B = data("normal", (3, 40, 30), rng), data("normal", (30, 50), rng)
    fused = lrqmm.get_method(method, execution="fused")
    prepared = fused.prepare(B)
    expected = np.stack([fused.matmul(matrix, B) for matrix in A])
    assert np.array_equal(fused.matmul(A, prepared), expected)
    assert np.array_equal(fused.matmul(A, B), expected)
    out = np.empty((40, 50), np.float32)
    assert fused.matmul(A[0], prepared, out=out) is out
    assert np.array_equal(out, expected[0])
    assert np.array_equal(fused.matmul(A[0].astype(np.float64), B).astype(np.float32), expected[0])


def test_rank_zero_is_direct():
    rng = np.random.default_rng(4)
    A, B = data("normal", (20, 30), rng), data("normal", (30, 10), rng)
    direct = lrqmm.matmul(A, B, "direct", execution="fused")
    for method in ("lrqmm", "lrqmm_aware"):
        assert np.array_equal(lrqmm.matmul(A, B, method, rank=0, execution="fused"), direct)


def test_threads_share_a_prepared_operand():
    rng = np.random.default_rng(6)
    B = data("normal", (60, 70), rng)
    lefts = [data("normal", (50, 60), rng) for _ in range(8)]
    fused = lrqmm.get_method("lrqmm_aware", execution="fused")
    prepared = fused.prepare(B)
    expected = [fused.matmul(A, prepared) for A in lefts]
    found = [None] * len(lefts)

    def work(i):
        for _ in range(20):
            found[i] = fused.matmul(lefts[i], prepared)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(lefts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own, right in zip(found, expected, strict=True):
        assert oracle.distance(own, right) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_allocates_nothing_of_the_matrices_size(method):
    n = 1024
    rng = np.random.default_rng(7)
    A, B = data("normal", (n, n), rng), data("normal", (n, n), rng)
    out = np.empty((n, n), np.float32)
    rank = dict(rank=8) if method.startswith("lrqmm") else {}
    fused = lrqmm.get_method(method, execution="fused", **rank)
    prepared = fused.prepare(B)
    fused.matmul(A, prepared, out=out)  # the work space is made here
    with torch.profiler.profile(profile_memory=True) as profile:
        fused.matmul(A, prepared, out=out, check_finite=False)
    largest = max(abs(event.self_cpu_memory_usage) for event in profile.events())
    tracemalloc.start()
    fused.matmul(A, prepared, out=out, check_finite=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * n  # bytes: not even a matrix of int8
    assert largest <= n * n  # oneDNN's own packed copy of an int8 operand
    tracemalloc.start()
    fused.matmul(A, prepared, check_finite=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 4 * n * n <= peak < 5 * n * n  # the result alone


# what is refused


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (dict(granularity="tensor"), "granularity is 'tensor'; allowed: 'vector', 'group:N' with"),
        (dict(zero_point="integer"), "zero_point is 'integer'; allowed: None with execution"),
        (dict(terms="exact"), "terms is 'exact'; allowed: 'full', 'first' with execution"),
        (dict(sketch="gaussian"), "sketch is 'gaussian'; allowed: 'ones\\+sign', 'sign' with"),
        (dict(factor_dtype="float32"), "factor_dtype is 'float32'; allowed: 'int8' with"),
    ],
    ids=str,
)
def test_what_it_does_not_cover_is_named(params, message):
    assert set(params) <= {*COVERED, "granularity"}
    with pytest.raises(ValueError, match=message):
        lrqmm.get_method("lrqmm", execution="fused", **params)


def test_methods_without_it_say_so():
    with pytest.raises(TypeError, match="'two_slice' has no parameter 'execution'"):
        lrqmm.get_method("two_slice", execution="fused")
    with pytest.raises(ValueError, match="execution is 'quick'; allowed: 'plain', 'fused'"):
        lrqmm.get_method("lrqmm", execution="quick")


def test_other_libraries_and_overlong_sums_are_unsupported():
    import array_api_strict as xp

    ones = xp.ones((2, 2), dtype=xp.float32)
    with pytest.raises(lrqmm.Unsupported, match="no fused execution for array_api_strict"):
        lrqmm.matmul(ones, ones, "direct", execution="fused")
    k = LARGEST_K + 1
    A, B = np.ones((1, k), np.float32), np.ones((k, 1), np.float32)
    with pytest.raises(lrqmm.Unsupported, match=f"k is {k}; allowed: up to {LARGEST_K}"):
        lrqmm.matmul(A, B, "direct", execution="fused")
    A, B = A[:, :-1], B[:-1]
    assert lrqmm.matmul(A, B, "direct", execution="fused")[0, 0] == pytest.approx(k - 1, rel=1e-6)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((3, 5), np.float32), ValueError, "out has shape 3 x 5; allowed: 3 x 4"),
        (np.empty((3, 4)), TypeError, "out has dtype float64"),
        (np.empty((4, 3), np.float32).T, ValueError, "strides of its own"),
        (torch.empty(3, 4), TypeError, "out is a Tensor; allowed: an array of numpy"),
    ],
    ids=["shape", "dtype", "strides", "library"],
)
def test_wrong_out(out, error, message):
    A, B = np.ones((3, 2), np.float32), np.ones((2, 4), np.float32)
    for method in ("sgemm", "direct", "two_slice"):
        with pytest.raises(error, match=message):
            lrqmm.get_method(method).matmul(A, B, out=out)


@pytest.mark.parametrize("method", ["sgemm", "direct", "two_slice", "bf16", "fp8"])
def test_every_method_writes_to_out(method):
    A, B = (torch.rand(9, 9) for _ in range(2))
    own = lrqmm.get_method(method)
    out = torch.full((9, 9), float("nan"))
    assert own.matmul(A, B, out=out) is out
    assert torch.equal(out, own.matmul(A, B))


# the parts


@pytest.mark.parametrize("seed", range(12))
def test_passes_give_the_documented_codes_and_digits(seed, implementation):
    rng = np.random.default_rng(seed)
    rows, k = (int(size) for size in rng.integers(1, 90, 2))
    X = rng.standard_normal((rows, k), dtype=np.float32)
    X[rng.integers(rows)] = 0
    if rows > 1:
        X[rng.integers(rows)] *= np.float32(1e-42)  # below the smallest scale
    bits, rounding = 2 + seed % 7, ROUNDINGS[seed % 3]
    codes, scale = encoded(X, bits, rounding)
    for given in (X, np.asfortranarray(X)):
        own = cpu.quantize(torch.from_numpy(given), bits, rounding, rank=3, residual=True)
        assert own.room.shape == (rows + 3, k)
        assert np.array_equal(own.codes.numpy(), codes)
        assert np.array_equal(own.scale.numpy(), scale)
        residual = X - scale[:, None] * codes
        digits = UNIT[rounding] * scale[:, None] * own.digits.numpy()
        whole = scale != 0
        step = UNIT[rounding] * np.abs(scale[whole, None])
        assert (np.abs(residual - digits)[whole] <= 0.51 * step + 1e-6 * np.abs(X[whole])).all()
        assert not own.digits.numpy()[~whole].any()
        if rounding == "truncate":  # the largest element keeps the top level
            top = 2 ** (bits - 1) - 1
            assert (np.abs(codes[whole]).max(axis=1) == top).all()
        if rounding == "signed":  # it is kept, as the one level more
            kept = np.take_along_axis(codes, np.abs(X).argmax(axis=1)[:, None], axis=1)[whole]
            assert np.isin(kept, (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)).all()
            assert (codes[whole].min(axis=1) == -(2 ** (bits - 1))).all()


@pytest.mark.parametrize("q", [0, 1, 4, 7, 32])
@pytest.mark.parametrize("shape", [(1, 1), (5, 63), (6, 64), (13, 129), (50, 200)])
def test_scale_update(shape, q, implementation):
    m, n = shape
    rng = np.random.default_rng(q)
    sums = torch.from_numpy(rng.integers(-(2**30), 2**30, (m + 2, n + 3)).astype(np.int32))
    s, t, X, Y = (
        torch.from_numpy(rng.standard_normal(size, dtype=np.float32))
        for size in (m, n, (m, q), (n, q))
    )
    C = torch.empty(m, n)
    passes.scale_update(sums, s, t, X, Y, C)
    expected = s.double()[:, None] * t.double() * sums[:m, :n] + X.double() @ Y.double().T
    assert oracle.distance(C.numpy(), expected.numpy()) < 1e-6


@pytest.mark.parametrize("weighted", [False, True])
def test_two_digits_hold_sixteen_bits(weighted, implementation):
    rng = np.random.default_rng(8)
    X = torch.from_numpy(rng.standard_normal((130, 7), dtype=np.float32))
    X[:, 3] = 0
    weight = torch.from_numpy(rng.random(130, dtype=np.float32)) if weighted else None
    codes, scale = cpu.two_digits(X, weight)
    back = scale[:, None] * (codes[:7] + codes[7:] / 254)
    expected = (X if weight is None else weight[:, None] * X).T
    assert np.allclose(back, expected, atol=float(scale.max()) * 0.51 / 254)
    sums = torch.from_numpy(rng.integers(-1000, 1000, (130, 14)).astype(np.int32))
    f, g = torch.rand(130), torch.rand(7)
    for given in (sums, sums.T.contiguous().T):
        merged = cpu.merge(given, f, g)
        assert np.allclose(merged, f[:, None] * g * (sums[:, :7] + sums[:, 7:] / 254), rtol=1e-5)
        assert np.allclose(cpu.merge(given, None, g), merged / f[:, None], rtol=1e-5)


@pytest.mark.parametrize("condition", [1e0, 1e3, 1e8, np.inf])
def test_orthonormal_bases(condition):
    rng = np.random.default_rng(9)
    U = np.linalg.qr(rng.standard_normal((80, 6)))[0]
    V = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    s = (
        np.geomspace(1, 1 / condition, 6)
        if np.isfinite(condition)
        else np.array([1.0] * 4 + [0, 0])
    )
    Y = torch.from_numpy((U * s) @ V)
    Q = cpu.orthonormal(Y).double()
    assert np.allclose(Q.T @ Q, np.eye(6), atol=1e-5)
    assert np.allclose(Q @ (Q.T @ Y), Y, atol=1e-6)


def test_both_implementations_have_the_same_passes():
    for name in ("quantize_rows", "quantize_columns", "thin_codes", "merge", "scale_update"):
        assert callable(getattr(passes, name))
        assert callable(getattr(passes_numba, name))
    assert UNIT == {"nearest": 1 / 254, "truncate": 1 / 127, "signed": 1 / 127}
    assert ROUNDINGS == passes.MODES
