"""Seeded matrices are what their names say; matrix files are read whole or refused by name."""

import hashlib
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import distance
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from scipy import stats

from lrqmm.bench.data.matrices import (
    InputError,
    check_pair,
    matrix_shape,
    read_matrix,
    read_pair,
    read_values,
    write_pair,
)
from lrqmm.bench.sources.distributions import DISTRIBUTIONS, sample

X = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)

# distributions


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_samples_are_seeded(name):
    A, B = sample(name, 30, 70, 50, seed=1)
    assert (A.shape, B.shape) == ((30, 70), (70, 50))
    for X in (A, B):
        assert X.dtype == np.float32
        assert X.flags.c_contiguous
        assert np.isfinite(X).all()
    again, other = sample(name, 30, 70, 50, seed=1), sample(name, 30, 70, 50, seed=2)
    for i in (0, 1):
        np.testing.assert_array_equal((A, B)[i], again[i])
        assert ((A, B)[i] != other[i]).mean() > 0.5
    assert (A[:, :50] != B[:30, :]).mean() > 0.5  # B is drawn after A, not again


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("uniform01", stats.uniform(0, 1)),
        ("uniform11", stats.uniform(-1, 2)),
        ("normal", stats.norm()),
        ("exponential", stats.expon()),
        ("chi2", stats.chi2(1)),
        ("lognormal", stats.lognorm(1)),
    ],
)
def test_continuous_distributions(name, law):
    for X in sample(name, 100, 200, 100, seed=0):
        assert stats.kstest(X.ravel().astype(float), law.cdf).pvalue > 1e-3


def test_poisson():
    for X in sample("poisson", 100, 200, 100, seed=0):
        values, counts = np.unique(X, return_counts=True)
        assert (values == values.round()).all()
        expected = stats.poisson(4).pmf(values) * X.size
        often = expected > 20
        assert (np.abs(counts - expected)[often] < 5 * np.sqrt(expected[often])).all()
        assert often.sum() > 10


def test_lowrank_is_rank_twenty_with_one_percent_noise():
    for X in sample("lowrank", 150, 200, 100, seed=0):
        s = np.linalg.svd(X.astype(float), compute_uv=False)
        noise, signal = np.linalg.norm(s[20:]), np.linalg.norm(s)
        assert s[19] > 10 * s[20]
        assert 0.007 < noise / signal < 0.011
    assert np.linalg.matrix_rank(sample("lowrank", 5, 5, 5, seed=0)[0]) == 5  # small ones exist


def test_outliers_are_columns_along_the_inner_dimension():
    A, B = sample("outliers", 400, 256, 500, seed=0)
    for X in (A, B.T):
        size = np.median(np.abs(X), axis=0)
        large = size > 5 * np.median(size)
        assert large.sum() == 256 // 64
        assert 12 < np.median(size[large]) / np.median(size[~large]) < 30
        usual = X[:, ~large].ravel().astype(float)
        assert stats.kstest(usual, stats.t(3).cdf).pvalue > 1e-3
    few = np.median(np.abs(sample("outliers", 2000, 10, 10, seed=0)[0]), axis=0)
    assert (few > 5 * np.median(few)).sum() == 1  # at least one, however few the columns


def test_correlated_rows_along_the_inner_dimension():
    A, B = sample("correlated", 300, 400, 300, seed=0)
    for X in (A, B.T):
        for lag in (1, 10):
            found = np.mean(X[:, lag:] * X[:, :-lag])
            assert abs(found - 0.95**lag) < 0.04
        assert abs(X[:, 0].std() - 1) < 0.15  # stationary from the first column on
        across = np.corrcoef(X[:60])[np.triu_indices(60, 1)]
        assert abs(across.mean()) < 0.03


# pairs


@pytest.fixture
def pair(tmp_path):
    A, B = sample("normal", 6, 5, 4, seed=0)
    path = tmp_path / "deep" / "pair.safetensors"
    write_pair(path, A, B, {"seed": 0, "distribution": "normal"})
    return path, A, B


def test_pairs_come_back_bit_for_bit(pair):
    path, A, B = pair
    found_A, found_B, digest = read_pair(path)
    np.testing.assert_array_equal(found_A, A)
    np.testing.assert_array_equal(found_B, B)
    assert found_A.dtype == found_B.dtype == np.float32
    assert digest == check_pair(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert Path(f"{path}.sha256").read_text() == f"{digest}  pair.safetensors\n"
    assert {p.name for p in path.parent.iterdir()} == {path.name, path.name + ".sha256"}


def test_pairs_may_be_views_and_are_replaced_whole(pair):
    path, A, B = pair
    before = check_pair(path)
    write_pair(path, A.T, B[::-1, ::2], {})
    np.testing.assert_array_equal(read_pair(path)[0], A.T)
    np.testing.assert_array_equal(read_pair(path)[1], B[::-1, ::2])
    assert check_pair(path) != before


@pytest.mark.parametrize("where", [0, 40, -1])
def test_a_changed_byte_is_corrupt(pair, where):
    path, *_ = pair
    written = check_pair(path)
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    for read in (read_pair, check_pair):
        with pytest.raises(InputError, match=rf"{path}.*corrupt.*{found}.*{written}"):
            read(path)


def test_the_same_pair_is_the_same_bytes(tmp_path):
    about = {name: name for name in "abcdefgh"}
    for number in range(6):
        write_pair(tmp_path / str(number), X, X, about)
    assert len({check_pair(tmp_path / str(number)) for number in range(6)}) == 1


def shorten(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def sidecar(change):
    return lambda path: change(path.with_name(path.name + ".sha256"))


@pytest.mark.parametrize(
    "spoil",
    [
        shorten,
        empty,
        remove,
        sidecar(remove),
        sidecar(empty),
        sidecar(lambda path: path.write_text("0" * 64 + "  pair.safetensors\n")),
        sidecar(lambda path: path.write_bytes(b"\xff\xfe\x00\x80")),
    ],
    ids=["short", "empty", "gone", "no hash", "empty hash", "another hash", "binary hash"],
)
def test_a_pair_that_is_not_what_was_written_is_refused_by_name(pair, spoil):
    path, *_ = pair
    spoil(path)
    for read in (read_pair, check_pair):
        with pytest.raises(InputError, match=re.escape(str(path))):
            read(path)


# users' own matrices


def stored(path, X, key="weight", **others):
    """The matrix in a file of the path's kind, and the source that names it."""
    if path.suffix == ".npy":
        np.save(path, X)
        return str(path)
    if path.suffix == ".npz":
        np.savez(path, **{key: X}, **others)
    else:
        save_file({key: np.ascontiguousarray(X), **others}, path)
    return f"{path}:{key}"


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_matrices_of_every_kind_and_dtype(tmp_path, suffix, dtype):
    source = stored(tmp_path / f"my file{suffix}", X.astype(dtype))
    found = read_matrix(source)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X.astype(dtype).astype(np.float32))
    assert matrix_shape(source) == found.shape == (30, 20)


def test_layouts_and_compression(tmp_path):
    sources = [stored(tmp_path / "fortran.npy", np.asfortranarray(X))]
    np.savez_compressed(tmp_path / "small.npz", X)
    for source in (*sources, str(tmp_path / "small.npz")):
        np.testing.assert_array_equal(read_matrix(source), X)
        assert matrix_shape(source) == (30, 20)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_names_in_a_file(tmp_path, suffix):
    path = tmp_path / f"one{suffix}"
    stored(path, X)
    assert distance(read_matrix(str(path)), X) == 0  # the only array needs no name
    several = tmp_path / f"several{suffix}"
    source = stored(several, X, other=np.zeros((3, 4), np.float32))
    np.testing.assert_array_equal(read_matrix(source), X)
    assert matrix_shape(f"{several}:other") == (3, 4)
    for read in (read_matrix, matrix_shape):
        with pytest.raises(InputError, match=f"{several}: .*name one; it has: other, weight"):
            read(str(several))
        with pytest.raises(InputError, match=f"{several}: no array 'wieght'; it has: other, weig"):
            read(f"{several}:wieght")


def pickled(path):
    np.save(path, np.array([[{"a": 1}]], dtype=object), allow_pickle=True)


def pickled_npz(path):
    np.savez(path, X=np.array([[{"a": 1}]], dtype=object))


def text(path):
    path.write_text("1 2 3\n4 5 6\n")


def truncated(path):
    stored(path, X)
    path.write_bytes(path.read_bytes()[: 3 * path.stat().st_size // 4])


def npy_inside(path):
    with open(path, "wb") as stream:
        np.save(stream, X)


def npz_inside(path):
    with open(path, "wb") as stream:
        np.savez(stream, X=X)


def zip_without_arrays(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing here")


def folder(path):
    path.mkdir()


def absent(path):
    pass


UNREADABLE = [
    ("x.npy", pickled),
    ("x.npz", pickled_npz),
    *((f"x.{kind}", spoil) for kind in ("npy", "npz", "safetensors") for spoil in (
        text, empty, truncated, folder, absent,
    )),
    ("x.npz", npy_inside),
    ("x.npy", npz_inside),
    ("x.safetensors", npz_inside),
    ("x.npz", zip_without_arrays),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil"), UNREADABLE)
def test_files_that_cannot_be_read_are_named(tmp_path, name, spoil):
    path = tmp_path / name
    spoil(path)
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_matrix(str(path))
    with pytest.raises(InputError, match=re.escape(str(path))):
        matrix_shape(str(path))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".npy"])
def test_any_changed_byte_is_read_or_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, weight=X)
    else:
        stored(path, X)
    content = path.read_bytes()
    for where in range(0, len(content), 1 + len(content) // 400):
        changed = bytearray(content)
        changed[where] ^= 0x55
        path.write_bytes(changed)
        for read in (read_matrix, matrix_shape):
            try:
                read(str(path))
            except InputError as refusal:
                assert str(path) in str(refusal)  # noqa: PT017


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.ones((3, 4), int), r"shape \(3, 4\) and dtype int64; allowed: .* floats"),
        (np.ones((3, 4), complex), "dtype complex128; allowed: .* floats"),
        (np.ones((3, 4), bool), "dtype bool; allowed: .* floats"),
        (np.ones((3, 4), "U5"), "dtype <U5; allowed: .* floats"),
        (np.ones(3), r"shape \(3,\) and dtype float64; allowed: two dimensions"),
        (np.ones((2, 3, 4)), r"shape \(2, 3, 4\)"),
        (np.float32(3), r"shape \(\)"),
        (np.ones((0, 4)), r"shape \(0, 4\).*not empty"),
    ],
)
def test_anything_but_a_matrix_of_floats_is_refused(tmp_path, content, said):
    for suffix in (".npy", ".npz"):
        source = stored(tmp_path / f"x{suffix}", content)
        with pytest.raises(InputError, match=rf"{source} has .*{said}"):
            read_matrix(source)
        if np.ndim(content) != 2:
            with pytest.raises(InputError, match=rf"{source} has .*allowed: two dimensions"):
                matrix_shape(source)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(np.nan, "float32"), (np.inf, "float16"), (-np.inf, "float64"), (1e39, "float64")],
)
def test_values_that_are_not_finite_in_float32_are_located(tmp_path, value, dtype):
    wrong = X.astype(dtype)
    wrong[7, 3] = wrong[29, 19] = value
    source = stored(tmp_path / "x.npy", wrong)
    with pytest.raises(
        InputError, match=rf"{source} holds 2 values .*NaN.* the first at row 7, column 3"
    ):
        read_matrix(source)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("value", "dtype"), [(1e-50, "float64"), (1e-300, "float64"), (1e-36, "float32")]
)
def test_a_matrix_that_underflows_is_refused(tmp_path, value, dtype, suffix):
    source = stored(tmp_path / f"x{suffix}", np.full((3, 4), value, dtype))
    for read in (read_matrix, read_values):
        with pytest.raises(InputError, match=rf"{source} underflows: .* is 1e-.*allowed: 0, or"):
            read(source)


def test_a_matrix_is_not_refused_for_small_elements_or_zeros(tmp_path):
    wide = X.astype(np.float64)
    wide[3, 4] = 1e-50
    for matrix in (wide, np.zeros((3, 4)), np.full((3, 4), 2.0**-119)):
        source = stored(tmp_path / "x.npy", matrix)
        np.testing.assert_array_equal(read_values(source), matrix)
        np.testing.assert_array_equal(read_matrix(source), matrix.astype(np.float32))


def test_values_keep_float64_and_others_become_float32(tmp_path):
    for dtype, kept in (("float16", "float32"), ("float32", "float32"), ("float64", "float64")):
        source = stored(tmp_path / "x.npy", X.astype(dtype))
        assert read_values(source).dtype == kept
        assert read_matrix(source).dtype == np.float32


def test_pairs_of_float64_come_back_bit_for_bit(tmp_path):
    wide = np.random.default_rng(0).standard_normal((6, 5))
    write_pair(tmp_path / "pair.safetensors", wide, wide.T.astype(np.float32), {})
    A, B, _ = read_pair(tmp_path / "pair.safetensors")
    np.testing.assert_array_equal(A, wide)
    assert (A.dtype, B.dtype) == (np.float64, np.float32)


def test_bfloat16_of_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    save_torch({"weight": torch.from_numpy(X).bfloat16(), "other": torch.zeros(3)}, path)
    want = (X.view(np.uint32) + 0x7FFF + (X.view(np.uint32) >> 16 & 1)) & 0xFFFF0000  # to nearest
    source = f"{path}:weight"
    np.testing.assert_array_equal(read_matrix(source), want.view(np.float32))
    assert read_matrix(source).dtype == np.float32
    assert matrix_shape(source) == (30, 20)


FORMATS = {  # of safetensors, that are not read, and the bytes that an element takes
    **{"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F4": 0.5, "I8": 1, "U8": 1, "BOOL": 1},
    **{"I16": 2, "I32": 4, "I64": 8, "U16": 2, "C64": 8},
}


def write_format(path, dtype, size):
    """A safetensors file of a 4 x 6 tensor of any number format, all its bits zero."""
    header = {"w": {"dtype": dtype, "shape": [4, 6], "data_offsets": [0, int(24 * size)]}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(int(24 * size)))
    return f"{path}:w"


@pytest.mark.parametrize("dtype", FORMATS)
def test_other_formats_of_safetensors_are_refused_from_the_header(tmp_path, dtype):
    source = write_format(tmp_path / "x.safetensors", dtype, FORMATS[dtype])
    for read in (matrix_shape, read_matrix):
        with pytest.raises(
            InputError, match=rf"{source} has .* dtype {dtype}; allowed: .* 16 bits"
        ):
            read(source)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", "<f4"])
def test_both_byte_orders(tmp_path, suffix, dtype):
    source = stored(tmp_path / f"x{suffix}", X.astype(dtype))
    found = read_matrix(source)
    np.testing.assert_array_equal(found, X.astype(dtype).astype(np.float32))
    assert found.dtype == np.float32
    assert found.dtype.isnative
    assert matrix_shape(source) == (30, 20)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.ones((3, 4), "V2"), r"dtype \|V2; allowed: .* lose bfloat16, so write it as .safetens"),
        (np.ones((3, 4), "i1"), "dtype int8; allowed"),
        (np.ones((3, 4), ">i4"), "dtype >i4; allowed"),
        (np.ones((3, 4), [("a", "f4")]), r"dtype \[\('a', '<f4'\)\]; allowed"),
        (np.ones((3, 4), "M8[s]"), r"dtype datetime64\[s\]; allowed"),
        (np.ones((3, 4), complex), "dtype complex128; allowed"),
        (np.ones((0, 4)), r"shape \(0, 4\).*not empty"),
    ],
)
def test_planning_refuses_what_reading_would(tmp_path, content, said):
    for suffix in (".npy", ".npz"):
        source = stored(tmp_path / f"x{suffix}", content)
        for read in (matrix_shape, read_matrix):
            with pytest.raises(InputError, match=rf"{source} has .*{said}"):
                read(source)


def test_unknown_extensions_are_refused(tmp_path):
    for name in ("x.csv", "x.pt", "x", "x.npy.gz", "x.npy:name", ""):
        for read in (read_matrix, matrix_shape):
            with pytest.raises(InputError, match=rf"{name}: allowed are \.npy, \.npz.*safetensors"):
                read(str(tmp_path / name))
