"""Products of matrices on disk: against the ones in memory, within the memory they may take."""

import errno
import os
import re
import resource
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from oracle import distance, product

import lrqmm
from lrqmm import tiled
from lrqmm.products.quantize import Uniform
from lrqmm.products.rsvd import sketch_matrix
from lrqmm.tiled import lowrank

pytestmark = pytest.mark.filterwarnings("error")

METHODS = ("direct", "lrqmm", "lrqmm_aware", "mean_fix", "sgemm")
LIMITS = (40_000, 100_000, 1 << 30)  # the first two make many tiles of the shapes below
SHAPES = [(57, 83, 41), (1, 83, 41), (57, 83, 1), (57, 1, 41), (1, 1, 1), (3, 200, 5)]


def uniform(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).random(shape, np.float32)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


@pytest.fixture
def on_disk(tmp_path):
    """Matrices as .npy files; returns their paths."""

    def save(A, B):
        np.save(tmp_path / "A.npy", A)
        np.save(tmp_path / "B.npy", B)
        return tmp_path / "A.npy", tmp_path / "B.npy"

    return save


# the same product as in memory


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_direct_is_that_in_memory(on_disk, shape, limit):
    m, k, n = shape
    A, B = uniform(m, k) - 0.3, uniform(k, n)
    paths = on_disk(A, B)
    C = tiled.matmul(*paths, "direct", memory_limit=limit, bits=5)
    np.testing.assert_array_equal(C, lrqmm.matmul(A, B, "direct", bits=5))


@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
@pytest.mark.parametrize("zero_point", [None, "integer", "float"])
@pytest.mark.parametrize("granularity", ["vector", "tensor", "group:10", "group:1", "group:500"])
def test_every_quantiser_is_that_in_memory(on_disk, granularity, zero_point, rounding):
    A, B = uniform(37, 53) + 0.2, normal(53, 29)
    paths = on_disk(A, B)
    how = dict(bits=4, granularity=granularity, zero_point=zero_point, rounding=rounding)
    expected = lrqmm.matmul(A, B, "direct", **how)
    for limit in LIMITS:
        C = tiled.matmul(*paths, "direct", memory_limit=limit, **how)
        np.testing.assert_array_equal(C, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("method", "params"), [("sgemm", {}), ("mean_fix", {"bits": 4, "rounding": "truncate"})]
)
def test_sgemm_and_mean_fix_are_those_in_memory(on_disk, method, params, shape):
    m, k, n = shape
    A, B = uniform(m, k), uniform(k, n)
    paths = on_disk(A, B)
    for limit in LIMITS:
        C = tiled.matmul(*paths, method, memory_limit=limit, **params)
        assert distance(C, lrqmm.matmul(A, B, method, **params)) < 1e-6


@pytest.mark.parametrize("method", ["lrqmm", "lrqmm_aware"])
@pytest.mark.parametrize(
    "params", [{}, {"rank": 3, "sketch": "sign", "terms": "exact", "granularity": "tensor"}]
)
def test_tiles_do_not_change_the_answer(on_disk, method, params):
    A, B = uniform(57, 83), uniform(83, 41)
    paths = on_disk(A, B)
    how = dict(method=method, bits=4, **params)
    whole = tiled.matmul(*paths, **how)
    for limit in (140_000, 200_000):
        assert distance(tiled.matmul(*paths, memory_limit=limit, **how), whole) < 1e-4


@pytest.mark.parametrize("sketch", ["gaussian", "ones+gaussian", "sign", "ones+sign"])
def test_test_matrices_are_drawn_strip_by_strip(sketch):
    rows = lowrank._drawn(7, sketch, (5, 1))
    drawn = [rows(slice(i, min(i + 3, 20))) for i in range(0, 20, 3)]
    expected = sketch_matrix(drawn[0], 20, 7, sketch, (5, 1))
    np.testing.assert_array_equal(np.concatenate(drawn), expected)


# errors of the low-rank methods, against those in memory without power iterations

N = 300
DATA = {
    "uniform": lambda: (uniform(N, N), uniform(N, N, seed=1)),
    "normal": lambda: (normal(N, N), normal(N, N, seed=1)),
    "exponential": lambda: (-np.log1p(-uniform(N, N)), -np.log1p(-uniform(N, N, seed=1))),
    "low rank": lambda: tuple(
        normal(N, 10, seed=i) @ normal(10, N, seed=i + 2) + 0.03 * normal(N, N, seed=i + 4)
        for i in (0, 1)
    ),
}


@pytest.mark.parametrize("rank", [1, 4, 16])
@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("method", ["lrqmm", "lrqmm_aware"])
def test_error_is_near_that_in_memory(method, data, rounding, rank):
    A, B = DATA[data]()
    exact = product(A, B)
    how = dict(method=method, bits=4, rounding=rounding, rank=rank)
    found = distance(tiled.matmul(A, B, memory_limit=3_000_000, **how), exact)
    in_memory = distance(lrqmm.matmul(A, B, power_iterations=0, **how), exact)
    direct = distance(lrqmm.matmul(A, B, "direct", bits=4, rounding=rounding), exact)
    assert found < (1.1 if method == "lrqmm" else 1.25) * in_memory
    assert found < direct  # the noise of rounding is not made worse
    if (data, rounding) == ("uniform", "truncate"):
        assert found < direct / 20


@pytest.mark.parametrize(
    "params",
    [
        {"sides": "a"},
        {"sides": "b"},
        {"terms": "first"},
        {"terms": "exact"},
        {"sketch": "gaussian"},
        {"sketch": "ones+sign"},
        {"granularity": "group:64"},
        {"granularity": "tensor"},
        {"oversampling": 0},
        {"oversampling": 10**6},
        {"zero_point": "float"},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["lrqmm", "lrqmm_aware"])
def test_every_parameter_does_what_it_does_in_memory(method, params):
    A, B = uniform(120, 150) ** 2, uniform(150, 90) ** 2
    exact = product(A, B)
    how = dict(method=method, bits=4, rounding="truncate", rank=4, **params)
    found = distance(tiled.matmul(A, B, memory_limit=1_500_000, **how), exact)
    expected = distance(lrqmm.matmul(A, B, power_iterations=0, **how), exact)
    assert 0.35 * expected < found < 1.15 * expected  # a test matrix of its own may do better
    rank_0 = tiled.matmul(A, B, memory_limit=1_500_000, **how | {"rank": 0})
    given = {key: how[key] for key in how.keys() & {"bits", "rounding", *QUANTISER}}
    np.testing.assert_array_equal(rank_0, lrqmm.matmul(A, B, "direct", **given))


QUANTISER = ("granularity", "zero_point")


@pytest.mark.parametrize("sketch", ["gaussian", "ones+gaussian"])
@pytest.mark.parametrize("shape", [(12, 14, 12), (14, 12, 14), (1, 30, 1)])
@pytest.mark.parametrize("method", ["lrqmm", "lrqmm_aware"])
def test_a_residual_of_full_rank_is_restored(method, shape, sketch):
    m, k, n = shape
    A, B = normal(m, k), normal(k, n)
    C = tiled.matmul(A, B, method, bits=2, rank=min(m, k), oversampling=20, sketch=sketch)
    assert distance(C, product(A, B)) < 1e-5
    assert distance(lrqmm.matmul(A, B, "direct", bits=2), product(A, B)) > 0.1


@pytest.mark.parametrize("sketch", ["gaussian", "ones+gaussian"])
@pytest.mark.parametrize("method", ["lrqmm", "lrqmm_aware"])
def test_the_parts_have_the_rank_and_an_orthonormal_side(monkeypatch, method, sketch):
    found = []

    def parts(*operands):
        found.extend(low_rank_parts(*operands))
        return found

    low_rank_parts = tiled.low_rank_parts
    monkeypatch.setattr(tiled, "low_rank_parts", parts)
    tiled.matmul(normal(30, 20), normal(20, 4), method, rank=6, bits=4, sketch=sketch)
    ranks = (4, 4) if method == "lrqmm_aware" else (6, 4)  # at most the smaller side of B, of R B
    for part, rank in zip(found, ranks, strict=True):
        basis = part.V if part.U is None else part.U
        assert part.V.shape == (20, rank)
        np.testing.assert_allclose(basis.T @ basis, np.eye(rank), atol=1e-5)


def test_one_sided_residual_needs_rank_one_only(on_disk):
    A, B = uniform(60, 80), uniform(80, 50)
    how = dict(bits=4, rounding="truncate")
    C = tiled.matmul(*on_disk(A, B), "lrqmm", rank=1, **how)
    np.testing.assert_allclose(C, lrqmm.matmul(A, B, "mean_fix", **how), rtol=1e-5)


# operands


@pytest.mark.parametrize("right", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("left", ["float16", "float32", "float64"])
def test_dtypes(on_disk, tmp_path, left, right):
    A, B = uniform(20, 30).astype(left), uniform(30, 10).astype(right)
    expected = lrqmm.matmul(A, B.astype(B.dtype.newbyteorder("=")), "direct")
    C = tiled.matmul(*on_disk(A, B), "direct", out=tmp_path / "C.npy", memory_limit=50_000)
    assert C.dtype == expected.dtype
    np.testing.assert_array_equal(C, expected)


@pytest.mark.parametrize("layout", ["memmap", "str", "array", "fortran", "transposed", "part"])
def test_every_way_to_hold_a_matrix(on_disk, layout):
    A, B = uniform(45, 61), uniform(61, 37)
    expected = lrqmm.matmul(A, B, "direct", bits=4)
    if layout == "array":
        operands = A, B
    elif layout == "part":
        whole = on_disk(np.pad(A, ((2, 3), (1, 4))), np.pad(B, ((0, 2), (5, 0))))
        A, B = (np.load(path, mmap_mode="r+") for path in whole)
        operands = A[2:-3, 1:-4], B[:-2, 5:]
    elif layout == "fortran":
        operands = on_disk(np.asfortranarray(A), np.asfortranarray(B))
    elif layout == "transposed":
        operands = [np.load(path, mmap_mode="c").T for path in on_disk(A.T.copy(), B.T.copy())]
    else:
        kind = str if layout == "str" else lambda path: np.load(path, mmap_mode="r")
        operands = [kind(path) for path in on_disk(A, B)]
    C = tiled.matmul(*operands, "direct", memory_limit=50_000, bits=4)
    np.testing.assert_array_equal(C, expected)


def test_a_private_map_keeps_its_changes(on_disk):
    paths = on_disk(uniform(30, 20), uniform(20, 10))
    A = np.load(paths[0], mmap_mode="c")
    A[:] = 2
    C = tiled.matmul(A, paths[1], "sgemm", memory_limit=30_000)
    assert (A == 2).all()
    np.testing.assert_allclose(C, 2 * uniform(20, 10).sum(axis=0, keepdims=True).repeat(30, axis=0))


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (2, 4, 0), (0, 0, 0)])
def test_empty_operands(on_disk, tmp_path, shape):
    m, k, n = shape
    paths = on_disk(np.ones((m, k), np.float32), np.ones((k, n), np.float32))
    for method in METHODS:
        for out in (None, tmp_path / "C.npy"):
            C = tiled.matmul(*paths, method, out=out)
            np.testing.assert_array_equal(C, np.zeros((m, n), np.float32))


def test_dask(tmp_path):
    da = pytest.importorskip("dask.array")
    A, B = uniform(60, 80), uniform(80, 50)
    lazy = da.from_array(A, chunks=(17, 30)) * 2 - 1, da.from_array(B, chunks=(23, 50)) + 1
    for method, params in (("direct", {}), ("sgemm", {}), ("lrqmm", {"rank": 2})):
        C = tiled.matmul(*lazy, method, out=tmp_path / "C.npy", memory_limit=100_000, **params)
        if method == "sgemm":
            assert distance(C, product(2 * A - 1, B + 1)) < 1e-6
        else:
            arrays = tiled.matmul(
                2 * A - 1, B + 1, method, out=tmp_path / "D.npy", memory_limit=100_000, **params
            )
            np.testing.assert_array_equal(C, arrays)
    unknown = lazy[0][lazy[0][:, 0] > 0]
    with pytest.raises(ValueError, match="A has shape nan x 80; allowed: two dimensions of known"):
        tiled.matmul(unknown, B)
    bad = da.where(da.from_array(A, chunks=20) == A[41, 7], np.nan, lazy[0].rechunk(20))
    with pytest.raises(ValueError, match=r"A holds nan at \(41, 7\)"):
        tiled.matmul(bad, B, "direct", memory_limit=100_000)


def test_dask_is_not_imported_for_others():
    code = "import sys, numpy as np; from lrqmm.tiled import matmul; x = np.ones((2, 2)); "
    code += "matmul(x, x); sys.exit('dask' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_operands_are_read_as_often_as_is_said(monkeypatch):
    A, B = uniform(50, 60), uniform(60, 40)
    read = {"A": 0, "B": 0}
    whole = tiled.Vectors._read

    def counted(self, start, floats):
        read[self.label] += len(floats)
        whole(self, start, floats)

    monkeypatch.setattr(tiled.Vectors, "_read", counted)
    for method, params, passes in (
        ("sgemm", {}, 0),
        ("direct", {}, 0),
        ("direct", {"granularity": "tensor"}, 1),
        ("mean_fix", {}, 0),
        ("lrqmm", {}, 1),
        ("lrqmm", {"rank": 1}, 0),
        ("lrqmm_aware", {}, 3),
    ):
        read.update(A=0, B=0)
        tiled.matmul(A, B, method, **params)  # one column strip holds all of B
        assert read == {"A": 50 * (passes + 1), "B": 40 * (passes + 1)}
    read.update(A=0, B=0)
    tiled.matmul(A, B, "direct", memory_limit=15_000)
    assert read["B"] == 40
    assert read["A"] > 50
    assert read["A"] % 50 == 0


# the result


def test_the_result_is_on_disk(on_disk, tmp_path):
    A, B = uniform(30, 40), uniform(40, 20)
    paths = on_disk(A, B)
    out = tmp_path / "C.npy"
    C = tiled.matmul(*paths, out=str(out))
    assert isinstance(C, np.memmap)
    assert not C.flags.writeable
    np.testing.assert_array_equal(np.load(out), tiled.matmul(A, B))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["A.npy", "B.npy", "C.npy"]


def test_out_may_exist_and_may_be_an_operand(on_disk, tmp_path):
    A, B = uniform(30, 30), uniform(30, 30, seed=1)
    paths = on_disk(A, B)
    C = tiled.matmul(*paths, "sgemm", out=paths[0], memory_limit=100_000)
    assert distance(C, product(A, B)) < 1e-6
    np.testing.assert_array_equal(np.load(paths[0]), C)


def spoiled(X, where):
    X = X.copy()
    X[where] = np.nan
    return X


@pytest.mark.parametrize("before", [None, b"an older result"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("operand", ["A", "B"])
def test_nan_in_a_late_strip_leaves_nothing(on_disk, tmp_path, operand, method, before):
    A, B = uniform(50, 60), uniform(60, 40)
    where = (49, 3) if operand == "A" else (58, 39)
    A, B = (spoiled(A, where), B) if operand == "A" else (A, spoiled(B, where))
    A, B = on_disk(A, B)
    out = tmp_path / "C.npy"
    if before:
        out.write_bytes(before)
    limit = 150_000 if method.startswith("lrqmm") else 30_000  # many reads a matrix
    message = rf"{operand} \(.*{operand}.npy\) holds nan at \({where[0]}, {where[1]}\); allowed"
    with pytest.raises(ValueError, match=message):
        tiled.matmul(A, B, method, out=out, memory_limit=limit)
    assert (out.read_bytes() if out.exists() else None) == before
    assert len(list(tmp_path.iterdir())) == 2 + bool(before)


@pytest.mark.parametrize("value", [1e300, -1e300, 2e36, np.inf, -np.inf])
def test_values_beyond_float32_are_refused(on_disk, value):
    A = uniform(5, 6).astype(np.float64)
    A[4, 2] = value
    with pytest.raises(ValueError, match=rf"holds {re.escape(str(value))} at \(4, 2\)"):
        tiled.matmul(*on_disk(A, uniform(6, 3)))


def test_an_interrupt_leaves_nothing(on_disk, tmp_path, monkeypatch):
    calls = []

    def interrupted(left, right):
        calls.append(left)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return product_of_codes(left, right)

    product_of_codes = tiled.product
    monkeypatch.setattr(tiled, "product", interrupted)
    paths = on_disk(uniform(50, 60), uniform(60, 40))
    with pytest.raises(KeyboardInterrupt):
        tiled.matmul(*paths, "direct", out=tmp_path / "C.npy", memory_limit=30_000)
    assert sorted(tmp_path.iterdir()) == list(paths)


def test_a_full_disk_is_found_before_the_work(on_disk, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    paths = on_disk(uniform(50, 60), uniform(60, 40))
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(tiled, "product", None)
    with pytest.raises(OSError, match="No space left"):
        tiled.matmul(*paths, "direct", out=tmp_path / "C.npy")
    assert sorted(tmp_path.iterdir()) == list(paths)


def test_a_file_size_limit_leaves_nothing(on_disk, tmp_path):
    paths = on_disk(uniform(200, 6), uniform(6, 200))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            tiled.matmul(*paths, "direct", out=tmp_path / "C.npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(tmp_path.iterdir()) == list(paths)


# memory


@pytest.mark.parametrize("method", METHODS)
def test_the_least_memory_that_is_named_will_do(method):
    A, B = uniform(50, 60), uniform(60, 40)
    with pytest.raises(
        ValueError, match=r"memory_limit is 9000 bytes; allowed: at least (\d+) f"
    ) as e:
        tiled.matmul(A, B, method, memory_limit=9000)
    least = int(str(e.value).split("at least ")[1].split()[0])
    expected = tiled.matmul(A, B, method)
    assert distance(tiled.matmul(A, B, method, memory_limit=least), expected) < 1e-3
    with pytest.raises(ValueError, match=f"allowed: at least {least} for this 50 x 60 by 60 x 40"):
        tiled.matmul(A, B, method, memory_limit=least - 2)


def test_a_result_larger_than_the_limit_asks_for_out(tmp_path):
    A, B = uniform(500, 3), uniform(3, 500)
    with pytest.raises(
        ValueError, match="memory_limit is 999999 bytes, and the result alone takes 1"
    ):
        tiled.matmul(A, B, "direct", memory_limit=999_999)
    C = tiled.matmul(A, B, "direct", memory_limit=999_999, out=tmp_path / "C.npy")
    np.testing.assert_array_equal(C, lrqmm.matmul(A, B, "direct"))


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("sgemm", {}),
        ("direct", {"zero_point": "integer", "rounding": "truncate"}),
        ("direct", {"granularity": "tensor", "rounding": "truncate"}),
        ("mean_fix", {}),
        ("lrqmm", {"rank": 8}),
        ("lrqmm", {"rank": 20, "granularity": "group:100"}),
        ("lrqmm_aware", {"rank": 4, "oversampling": 2}),
    ],
    ids=str,
)
def test_arrays_stay_within_the_limit(on_disk, tmp_path, method, params):
    paths = on_disk(uniform(700, 600), uniform(600, 800))  # 1.7 and 1.9 MB, the result 2.2
    assert_within(1_500_000, paths, tmp_path / "C.npy", method, params)


@pytest.mark.parametrize("method", ["direct", "sgemm"])
def test_arrays_of_long_vectors_stay_within_the_limit(on_disk, tmp_path, method):
    paths = on_disk(uniform(200, 6000), uniform(6000, 500))  # 5 and 12 MB
    assert_within(2_000_000, paths, tmp_path / "C.npy", method, {})


def assert_within(limit, paths, out, method, params):
    tiled.matmul(*paths, method, out=out, **params)  # what is made once is made
    tracemalloc.start()
    try:
        tiled.matmul(*paths, method, out=out, memory_limit=limit, **params)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * limit
    assert peak > 0.1 * limit  # what is there is used


@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
@pytest.mark.parametrize("zero_point", [None, "integer", "float"])
@pytest.mark.parametrize("granularity", ["vector", "tensor", "group:1", "group:3", "group:64"])
def test_quantising_takes_no_more_than_is_planned(granularity, zero_point, rounding):
    x = uniform(64, 4000)
    quantizer = Uniform(granularity=granularity, zero_point=zero_point, rounding=rounding)
    sizes = tiled.Sizes(read=64, work=64, left=64, right=64, mapped=1 << 20)
    vectors = tiled.Vectors("A", x, transposed=False, sizes=sizes).with_quantizer(quantizer)
    vectors.residual(x)  # modules are imported
    tracemalloc.start()
    try:
        vectors.residual(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < tiled.WORK_BYTES * x.size


GROWTH = """
import sys
import numpy as np
from lrqmm import tiled

folder, method = sys.argv[1:]

def resident():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

small = np.random.default_rng(0).random((300, 300), np.float32)
tiled.matmul(small, small, method)  # what the libraries take once
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts anew
before = resident()
paths = [f"{folder}/{name}.npy" for name in "ABC"]
tiled.matmul(*paths[:2], method, out=paths[2], memory_limit=16_000_000)
print(resident() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's /proc")
@pytest.mark.parametrize("method", ["direct", "lrqmm"])
def test_the_process_stays_small(on_disk, tmp_path, method):
    A, B = uniform(3000, 3000), uniform(3000, 3000, seed=1)  # 36 MB each, as is the result
    on_disk(A, B)
    run = subprocess.run(
        [sys.executable, "-c", GROWTH, tmp_path, method],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 4e6 < int(run.stdout) < 28e6
    C = np.load(tmp_path / "C.npy", mmap_mode="r")[1234:1250]
    assert distance(C, product(A[1234:1250], B)) < 0.01


# mistakes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"A is '.*A.npy', which cannot be read: .*; allowed: a .npy file"),
        (b"not a matrix", "A is '.*A.npy', which cannot be read"),
        ("cut", "A is '.*A.npy', which cannot be read"),
        ("objects", "A is '.*A.npy', which cannot be read"),
        (None, "A is '.*A.npy', which cannot be read: .*No such file"),
    ],
)
def test_corrupt_files(on_disk, tmp_path, content, message):
    path, B = on_disk(uniform(50, 60), uniform(60, 40))
    if content is None:
        path.unlink()
    elif content == "cut":
        os.truncate(path, 7000)
    elif content == "objects":
        np.save(path, np.array([[{}]], dtype=object))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        tiled.matmul(path, B, out=tmp_path / "C.npy")
    assert not (tmp_path / "C.npy").exists()


def test_an_archive_is_not_a_matrix(tmp_path):
    np.savez(tmp_path / "A.npz", uniform(3, 3))
    with pytest.raises(TypeError, match=r"A is a NpzFile; allowed: a NumPy array or memory map"):
        tiled.matmul(tmp_path / "A.npz", uniform(3, 3))


ONES = np.ones((4, 5), np.float32), np.ones((5, 3), np.float32)


@pytest.mark.parametrize(
    ("A", "B", "error", "message"),
    [
        (ONES[0], ONES[0], ValueError, "A has shape 4 x 5 and B 4 x 5; allowed: as many columns"),
        (ONES[0][0], ONES[1], ValueError, "A has shape 5; allowed: two dimensions"),
        (ONES[0], ONES[1][None], ValueError, "B has shape 1 x 5 x 3; allowed: two dimensions"),
        (ONES[0].astype(int), ONES[1], TypeError, "A has dtype int64; allowed: float16, float32"),
        (ONES[0], ONES[1] * 1j, TypeError, "B has dtype complex64; allowed: float16"),
        ([[1.0]], ONES[1], TypeError, "A is a list; allowed: a NumPy array or memory map, the pa"),
        (ONES[0], None, TypeError, "B is a NoneType; allowed"),
    ],
)
def test_wrong_operands(A, B, error, message):
    for method in METHODS:
        with pytest.raises(error, match=message):
            tiled.matmul(A, B, method)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"method": "two_slice"}, ValueError, "method is 'two_slice'; allowed: 'direct', 'lrqmm'"),
        ({"method": "lrqm"}, ValueError, r"method is 'lrqm' \(did you mean 'lrqmm'\?\)"),
        (
            {"power_iterations": 1},
            ValueError,
            "power_iterations is 1; allowed for matrices on disk: 0",
        ),
        ({"power_iterations": -1}, ValueError, "power_iterations is -1; allowed"),
        (
            {"execution": "fused"},
            ValueError,
            "execution is 'fused'; allowed for matrices on disk: 'pl",
        ),
        (
            {"factor_dtype": "int8"},
            ValueError,
            "factor_dtype is 'int8'; allowed for matrices on disk",
        ),
        ({"rank": 5}, ValueError, r"rank is 5; allowed: 0 to max\(min\(m, k\), min\(k, n\)\) = 4"),
        ({"bits": 1}, ValueError, "bits is 1; allowed: an integer 2 to 8"),
        ({"rnk": 1}, TypeError, r"'lrqmm' has no parameter 'rnk' \(did you mean 'rank'\?\)"),
        (
            {"method": "direct", "power_iterations": 1},
            TypeError,
            "'direct' has no parameter 'power_",
        ),
        ({"method": "sgemm", "bits": 8}, TypeError, "'sgemm' has no parameter 'bits'"),
        ({"memory_limit": 0}, ValueError, "memory_limit is 0; allowed: an integer of at least 1"),
        ({"memory_limit": 1e9}, TypeError, "memory_limit is 1000000000.0; allowed: an integer"),
        (
            {"out": "C.bin"},
            ValueError,
            "out is 'C.bin'; allowed: path of a .npy file in an existing",
        ),
        ({"out": "no/such/C.npy"}, ValueError, "out is 'no/such/C.npy'; allowed"),
    ],
    ids=str,
)
def test_wrong_parameters(given, error, message):
    with pytest.raises(error, match=message):
        tiled.matmul(*ONES, **given)


def test_power_iterations_may_be_given_as_what_they_are():
    np.testing.assert_array_equal(tiled.matmul(*ONES, power_iterations=0), tiled.matmul(*ONES))


def test_lrqmm_matmul_takes_files(tmp_path):
    rng = np.random.default_rng(0)
    A, B = (rng.standard_normal(shape, dtype=np.float32) for shape in ((40, 30), (30, 20)))
    paths = [tmp_path / "A.npy", tmp_path / "B.npy"]
    for path, X in zip(paths, (A, B), strict=True):
        np.save(path, X)
    expected = lrqmm.matmul(A, B, "direct")
    mapped = [np.load(path, mmap_mode="r") for path in paths]
    for given in (paths, mapped, (A, B)):
        own = lrqmm.matmul(
            *given,
            "direct",
            memory_limit=1 << 16,
            out=tmp_path / f"{len(list(tmp_path.iterdir()))}.npy",
        )
        assert isinstance(own, np.memmap)
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(lrqmm.matmul(*mapped, "direct"), expected, rtol=1e-5, atol=1e-5)
