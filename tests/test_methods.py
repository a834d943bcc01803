"""Every method against its formula in float64, and against the accuracy it is there for."""

import importlib

import numpy as np
import pytest
from oracle import LIBRARIES, PEERS, distance, low_rank, product, to, to_numpy

import lrqmm
from lrqmm.bench.measures._counter import count
from lrqmm.bench.sources.distributions import sample
from lrqmm.products.backends import torch as torch_backend
from lrqmm.products.packing import Packed
from lrqmm.products.quantize import Uniform

OFFLINE = ("lqer", "lowrank_first", "naive", "dsvd", "lplr", "lplr_svd")
"""Data-free, but with an SVD that is done once a weight and not counted."""
WHOLE = 1000  # an oversampling that makes the randomised SVD exact
LOW_RANK = ("lrqmm", "lrqmm_aware")
NOISE_SHAPED = ("sign", "sigma_delta", "beta")
"""Without scales a group."""
EVERYWHERE = [
    name
    for name in lrqmm.list_methods()
    if name not in ("bf16", "bf16_f32", "fp8", "fp8_f32", "tf32", *PEERS)
]
QUANTIZED = [name for name in EVERYWHERE if name != "sgemm"]


@pytest.mark.parametrize("name", [*EVERYWHERE, "hadamard+octav+lrqmm"])
def test_a_method_shows_the_call_that_makes_it(name):
    assert repr(lrqmm.get_method(name)) == f"get_method({name!r})"
    wanted = {"bits": 3, "rank": 5, "execution": "fused", "oversampling": 3}
    own = lrqmm.get_method(name).parameters
    given = {key: value for key, value in wanted.items() if key in own}
    method = lrqmm.get_method(name, **given)
    assert eval(repr(method), {"get_method": lrqmm.get_method}).parameters == method.parameters
    assert all(f"{key}={value!r}" in repr(method) for key, value in given.items())


def test_operands_show_their_shapes():
    found = Uniform(bits=4, zero_point="integer")
    assert repr(found) == "Uniform(bits=4, zero_point='integer')"
    stored = Packed.of(found.quantize(np.ones((3, 20), np.float32)), 4)
    assert repr(stored) == (
        "Packed(codes=<3 x 12 uint8>, bits=4, k=20, group=20, scale=<3 x 1 float32>, "
        "offset=<3 x 1 float32>)"
    )


def multiply(method, A, B, library="numpy", **params):
    return to_numpy(lrqmm.get_method(method, **params).matmul(to(library, A), to(library, B)))


def error(method, A, B, **params):
    return distance(multiply(method, A, B, **params), product(A, B))


def skewed(m=40, k=60, n=50, seed=0):
    """Operands of different shapes and kinds, so that no two formulas agree by chance."""
    rng = np.random.default_rng(seed)
    A = rng.exponential(1, (m, k)) - 0.3
    B = rng.random((k, n)) + 0.1 * rng.standard_normal((k, 1))
    return A.astype(np.float32), B.astype(np.float32)


def parts(A, B, **how):
    """Ã, R_A, B̃, R_B in float64."""
    A_ = Uniform(**how).quantize(A).dequantize().astype(np.float64)
    B_ = Uniform(**how).quantize(np.ascontiguousarray(B.T)).dequantize().astype(np.float64).T
    return A_, A - A_, B_, B - B_


def compensated(A, B, A_, B_, L_A, L_B, terms):
    first = A_ @ B_ + A_ @ L_B
    return {
        "first": first + L_A @ B_,
        "full": first + L_A @ B_ + L_A @ L_B,
        "exact": first + L_A @ B,
    }[terms]


@pytest.mark.parametrize("terms", ["first", "full", "exact"])
@pytest.mark.parametrize("sides", ["ab", "a", "b"])
@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
@pytest.mark.parametrize("granularity", ["vector", "group:16"])
def test_low_rank_formulas(terms, sides, rounding, granularity):
    A, B = skewed()
    how = dict(bits=3, rounding=rounding, granularity=granularity)
    A_, R_A, B_, R_B = parts(A, B, **how)
    given = dict(how, terms=terms, sides=sides, oversampling=WHOLE)
    a, b = "a" in sides, "b" in sides
    for rank in (1, 7):
        found = multiply("lrqmm", A, B, rank=rank, **given)
        L_A, L_B = a * low_rank(R_A, rank), b * low_rank(R_B, rank)
        assert distance(found, compensated(A, B, A_, B_, L_A, L_B, terms)) < 3e-6
        # product-aware: the dominant left directions of R_A B, the right ones of Ã R_B
        Q = np.linalg.svd(R_A @ B)[0][:, :rank]
        P = np.linalg.svd(A_ @ R_B)[2][:rank].T
        found = multiply("lrqmm_aware", A, B, rank=rank, **given)
        L_A, L_B = a * (Q @ Q.T @ R_A), b * (R_B @ P @ P.T)
        assert distance(found, compensated(A, B, A_, B_, L_A, L_B, terms)) < 3e-6


@pytest.mark.parametrize("how", [dict(bits=4), dict(bits=3, rounding="truncate")])
def test_formulas_without_a_rank(how):
    A, B = skewed()
    A_, R_A, B_, R_B = parts(A, B, **how)
    A2 = Uniform(**how).quantize(R_A.astype(np.float32)).dequantize().astype(np.float64)
    R_Bt = np.ascontiguousarray(R_B.T, np.float32)
    B2 = Uniform(**how).quantize(R_Bt).dequantize().astype(np.float64).T
    L_A = R_A.mean(axis=1, keepdims=True) + np.zeros_like(A)
    L_B = R_B.mean(axis=0, keepdims=True) + np.zeros_like(B)
    expected = {
        "direct": A_ @ B_,
        "mean_fix": (A_ + L_A) @ (B_ + L_B),
        "two_slice": A_ @ B_ + A_ @ B2 + A2 @ B_,
        "full_residual": A_ @ B_ + A_ @ R_B + R_A @ B_,
    }
    for method, C in expected.items():
        assert distance(multiply(method, A, B, **how), C) < 2e-6, method
    missed = product(A, B) - multiply("full_residual", A, B, **how)
    assert distance(missed, R_A @ R_B) < 1e-3


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_midpoint_formula(bits):
    A, B = skewed()

    def middle(X):
        scale = np.abs(X).max(axis=1, keepdims=True) / np.float32(2 ** (bits - 1) - 1)
        t = np.trunc(np.abs(X) / scale)
        t[np.abs(X) == np.abs(X).max(axis=1, keepdims=True)] = 2 ** (bits - 1) - 1
        return np.where(X < 0, -1, 1) * scale.astype(np.float64) * (t + 0.5)

    assert distance(multiply("midpoint", A, B, bits=bits), middle(A) @ middle(B.T).T) < 2e-6


@pytest.mark.parametrize("method", LOW_RANK)
@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
def test_full_rank_removes_the_residual(method, rounding):
    A, B = skewed(40, 60, 40)
    how = dict(bits=3, rounding=rounding)
    for terms in ("full", "exact"):
        assert error(method, A, B, rank=40, terms=terms, **how) < 2e-6
    _, R_A, _, R_B = parts(A, B, **how)
    missed = product(A, B) - multiply(method, A, B, rank=40, terms="first", **how)
    assert distance(missed, R_A @ R_B) < 1e-3


@pytest.mark.parametrize("method", LOW_RANK)
@pytest.mark.parametrize("shape", [(3, 40, 50), (50, 40, 3), (30, 4, 30), (1, 20, 30), (20, 30, 1)])
def test_an_operand_below_the_rank_is_compensated_at_its_limit(method, shape):
    A, B = skewed(*shape)
    limit = max(min(shape[:2]), min(shape[1:]))
    left = error(method, A, B, bits=3, rank=limit)
    if method == "lrqmm":
        assert left < 2e-6
    else:  # the product cannot show more directions of a residual than it has rows or columns
        assert left < 1.05 * error("full_residual", A, B, bits=3)
    with pytest.raises(ValueError, match=rf"rank is {limit + 1}; allowed: 0 to .* = {limit}"):
        multiply(method, A, B, rank=limit + 1)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("method", LOW_RANK)
def test_rank_zero_is_direct_bit_for_bit(library, method):
    A, B = skewed()
    for how in (dict(bits=4), dict(bits=5, rounding="truncate", zero_point="float")):
        np.testing.assert_array_equal(
            multiply(method, A, B, library, rank=0, **how),
            multiply("direct", A, B, library, **how),
        )
    model = lrqmm.get_method(method, bits=4, rank=0).cost(40, 60, 50)
    assert model == lrqmm.get_method("direct", bits=4).cost(40, 60, 50)


def test_default_rank_is_sixteen_or_the_limit():
    for shape, rank in (((40, 60, 50), 16), ((9, 60, 7), 9), ((9, 60, 50), 16)):
        A, B = skewed(*shape)
        np.testing.assert_array_equal(
            multiply("lrqmm", A, B, bits=3), multiply("lrqmm", A, B, bits=3, rank=rank)
        )


# what the methods are there for


def test_uniform01_truncated_gains_a_hundredfold_from_rank_one():
    A, B = sample("uniform01", 1024, 1024, 1024, seed=0)
    how = dict(bits=4, rounding="truncate", granularity="vector")
    direct = error("direct", A, B, **how)
    assert 0.25 < direct < 0.28
    assert error("lrqmm", A, B, rank=1, **how) < direct / 100
    assert error("mean_fix", A, B, **how) < direct / 50
    assert error("midpoint", A, B, bits=4) < direct / 30


def test_normal_rounded_gains_nothing_from_rank_one():
    A, B = sample("normal", 1024, 1024, 1024, seed=0)
    direct = error("direct", A, B, bits=4)
    assert 0.18 < direct < 0.22
    assert abs(error("lrqmm", A, B, bits=4, rank=1) / direct - 1) < 0.02
    assert error("full_residual", A, B, bits=4) < direct / 5
    assert error("two_slice", A, B, bits=4) < direct / 5


def test_aware_is_five_times_better_on_correlated_operands():
    A, B = sample("lowrank", 512, 512, 512, seed=0)
    how = dict(bits=4, rounding="nearest", rank=32)
    assert error("lrqmm_aware", A, B, **how) < error("lrqmm", A, B, **how) / 5


def test_aware_is_the_galerkin_approximation_of_the_products_error():
    """With the range of R_A B cut to rank r, the correction is that product's projection on it."""
    A, B = sample("lowrank", 200, 150, 180, seed=1)
    how = dict(bits=4)
    _, R_A, _, _ = parts(A, B, **how)
    wanted = R_A @ B
    correction = multiply("lrqmm_aware", A, B, rank=6, sides="a", terms="exact", **how) - multiply(
        "direct", A, B, **how
    ).astype(np.float64)
    U, s, _ = np.linalg.svd(correction)
    assert s[6] < 1e-4 * s[5]
    Q = U[:, :6]
    assert distance(correction, Q @ (Q.T @ wanted)) < 1e-4
    best = np.linalg.norm(wanted - low_rank(wanted, 6))
    assert np.linalg.norm(wanted - correction) < 1.05 * best


@pytest.mark.parametrize("method", LOW_RANK)
def test_both_sides_beat_one(method):
    A, B = sample("uniform01", 200, 200, 200, seed=0)
    how = dict(bits=4, rounding="truncate", rank=2)
    both, a, b = (error(method, A, B, sides=sides, **how) for sides in ("ab", "a", "b"))
    assert both < 0.2 * min(a, b)
    assert max(a, b) < 0.7 * error("direct", A, B, bits=4, rounding="truncate")


@pytest.mark.parametrize("method", LOW_RANK)
@pytest.mark.parametrize("distribution", ["uniform01", "lowrank", "outliers"])
def test_eight_bit_factors_are_nearly_as_good(method, distribution):
    A, B = sample(distribution, 160, 200, 180, seed=0)
    how = dict(bits=4, rounding="truncate", rank=4)
    as_float = multiply(method, A, B, factor_dtype="float32", **how)
    as_int8 = multiply(method, A, B, factor_dtype="int8", **how)
    correction = as_float - multiply("direct", A, B, bits=4, rounding="truncate")
    assert 0 < np.linalg.norm(as_int8 - as_float) < 0.05 * np.linalg.norm(correction)


# the same answer on every library

SETTINGS = [
    dict(bits=8),
    dict(bits=4, rounding="truncate"),
    dict(bits=4, zero_point="integer", granularity="group:24"),
    dict(bits=5, zero_point="float", granularity="tensor"),
    dict(bits=4, rank=3, terms="first", sketch="gaussian", power_iterations=2),
    dict(bits=3, rank=5, terms="exact", sides="b", oversampling=0),
    dict(bits=4, rank=4, factor_dtype="int8", sketch="ones+sign", seed=3),
]


@pytest.mark.parametrize("method", EVERYWHERE)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_libraries_agree(method, settings):
    known = lrqmm.get_method(method).parameters
    given = {key: value for key, value in settings.items() if key in known}
    if method in ("lplr", "lplr_svd"):  # whose sketches are others
        given.pop("sketch", None)
    if method in NOISE_SHAPED and "group" in given.get("granularity", ""):
        del given["granularity"]
    A, B = sample("uniform01", 70, 90, 80, seed=0)
    expected = multiply(method, A, B, **given)
    for library in LIBRARIES[1:]:
        found = multiply(method, A, B, library, **given)
        assert distance(found, expected) < 1e-5, library


# composition and discovery


@pytest.mark.parametrize("granularity", ["vector", "tensor", "group:5"])
@pytest.mark.parametrize(("zero_point", "zero_point_a"), [(None, "integer"), ("float", None)])
def test_the_left_operand_may_be_quantized_otherwise(zero_point, zero_point_a, granularity):
    A, B = sample("uniform01", 13, 22, 9, seed=3)
    how = dict(bits=3, zero_point=zero_point, granularity=granularity)
    of_a = Uniform(bits=6, zero_point=zero_point_a, granularity=granularity)
    A_, B_ = of_a.quantize(A).dequantize(), Uniform(**how).quantize(B.T).dequantize().T
    method = lrqmm.get_method("direct", bits_a=6, zero_point_a=zero_point_a, **how)
    assert distance(method.matmul(A, B), product(A_, B_)) < 1e-6
    # the compensators see A's own residual: at full rank all of it is won back
    method = lrqmm.get_method("lrqmm", bits_a=6, zero_point_a=zero_point_a, rank=13, **how)
    assert distance(method.matmul(A, B), product(A, B)) < 1e-5


def test_any_quantizer_composes_with_any_compensator():
    A, B = sample("exponential", 60, 80, 70, seed=0)
    for quantizer, own in (("uniform", dict(rounding="truncate")), ("midpoint", {})):
        direct = error(f"{quantizer}+permutation", A, B, bits=4, **own)
        for compensator in lrqmm.list_components()["compensators"]:
            found = error(f"permutation+{quantizer}+{compensator}", A, B, bits=4, **own)
            assert found < 0.98 * direct, (quantizer, compensator)


def test_composed_parts_are_those_of_the_named_methods():
    A, B = skewed()
    composed = lrqmm.get_method("midpoint+lrqmm", rank=60)
    assert composed.name == "midpoint+lrqmm"
    assert set(composed.parameters) == {
        "bits", "bits_a", "granularity", "rank", "tolerance", "on_unreachable", "terms",
        "oversampling", "power_iterations", "sketch", "factor_dtype", "sides", "seed",
    }  # fmt: skip
    with pytest.raises(ValueError, match="rank is 60; allowed"):
        composed.matmul(A, B)
    for name, parts in (("lrqmm", "uniform+lrqmm"), ("lrqmm", "lrqmm+uniform")):
        np.testing.assert_array_equal(multiply(parts, A, B, bits=4), multiply(name, A, B, bits=4))


@pytest.mark.parametrize(
    ("name", "given", "failure", "message"),
    [
        ("midpont+lrqmm", {}, ValueError, r"part of .* is 'midpont' \(did you mean 'midpoint'"),
        ("midpoint+lrqm", {}, ValueError, r"part of .* is 'lrqm' \(did you mean 'lrqmm'"),
        ("octav+", {}, ValueError, r"part of 'octav\+' is ''; allowed: 'affine', "),
        ("octav+affine", {}, ValueError, r"'octav\+affine' has two quantizers; allowed: one"),
        ("midpoint+lrqmm", dict(rounding="nearest"), TypeError, r"no parameter 'rounding'"),
        ("octav+two_slice", dict(rank=3), TypeError, r"no parameter 'rank'; allowed: bits"),
    ],
)
def test_composing_wrongly(name, given, failure, message):
    with pytest.raises(failure, match=message):
        lrqmm.get_method(name, **given)


def test_named_methods_are_not_recomposed():
    with pytest.raises(TypeError, match="'lrqmm' has no parameter 'quantizer'"):
        lrqmm.get_method("lrqmm", quantizer="midpoint")


def test_lists_are_sorted():
    names, components = lrqmm.list_methods(), lrqmm.list_components()
    assert names == sorted(names)
    assert {"direct", "lrqmm", "lrqmm_aware", "mean_fix", "sgemm", "two_slice"} <= set(names)
    assert components == {
        "transforms": ["awq", "espace", "hadamard", "permutation", "resq", "smoothquant"],
        "quantizers": [
            "affine", "bc4", "binary_mean", "e4m3", "e5m2", "gptq", "hqq", "lbw", "midpoint",
            "mxfp4", "mxfp6", "mxfp8", "nvfp4", "octav", "stochastic", "twn", "uniform",
        ],
        "compensators": [
            "arhq", "eora", "full_residual", "l2qer", "lowrank_first", "lqer", "lrqmm",
            "lrqmm_aware", "lrqmm_first", "mean_fix", "multipoint", "qera", "sparse_residual",
            "srr", "two_slice",
        ],
    }  # fmt: skip


@pytest.mark.parametrize("name", lrqmm.list_methods())
def test_every_method_file_names_itself_and_its_source(name):
    module = importlib.import_module(f"lrqmm.methods.{name}")
    assert module.METHOD.name == name
    assert lrqmm.get_method(name).name == name
    assert module.__doc__
    assert len(module.__doc__) > 40
    if name in QUANTIZED:
        assert "Source: " in module.__doc__ or "arXiv" in module.__doc__


# cost


@pytest.mark.parametrize("shape", [(64, 64, 64), (200, 150, 100), (100, 150, 300)])
@pytest.mark.parametrize("settings", [dict(bits=8), dict(bits=4, granularity="group:48")], ids=str)
@pytest.mark.parametrize("method", [*QUANTIZED, "sgemm", "bf16"])
def test_cost_model_agrees_with_counted_operations(monkeypatch, method, settings, shape):
    monkeypatch.setattr(torch_backend, "cpu_int_mm_refused", lambda: "")
    known = lrqmm.get_method(method).parameters
    given = {k: v for k, v in settings.items() if k in known}
    if method in NOISE_SHAPED:
        given.pop("granularity", None)
    built = lrqmm.get_method(method, **given)
    m, k, n = shape
    A, B = (to("torch", X) for X in sample("normal", m, k, n, seed=0))
    if method == "sparse_residual":
        pytest.skip("its products run dense and are modelled sparse")
    offline = built.calibrated or method in OFFLINE
    counted = count(
        built, A, built.prepare(B, calibration=A if built.calibrated else None) if offline else B
    )
    model = built.cost(m, k, n)
    assert counted["integer_operations"] == model.integer_operations
    if method == "flrq":  # its rank depends on B, and the model has the largest
        assert counted["float_operations"] <= model.float_operations
        return
    if offline:
        assert counted["float_operations"] == model.float_operations
        return
    if method in (
        *LOW_RANK,
        "lrqmm_first",
        "lramm",
    ):  # the model leaves out products of two thin matrices
        assert 0.9 < model.float_operations / counted["float_operations"] <= 1
    else:
        assert counted["float_operations"] == model.float_operations
    assert 0 < model.bytes <= counted["bytes"]


@pytest.mark.parametrize(
    ("method", "settings", "bits"),
    [
        ("sgemm", {}, 32 * (20 * 30 + 30 * 50)),
        ("bf16", {}, 16 * (20 * 30 + 30 * 50)),
        ("direct", dict(bits=4), 4 * (20 * 30 + 30 * 50) + 32 * (20 + 50)),
        ("direct", dict(bits=4, bits_a=8), 8 * 20 * 30 + 4 * 30 * 50 + 32 * (20 + 50)),
        ("direct", dict(bits=4, granularity="tensor"), 4 * (20 * 30 + 30 * 50) + 64),
        ("direct", dict(bits=4, granularity="group:8"), 4 * (600 + 1500) + 32 * 4 * (20 + 50)),
        ("direct", dict(bits=4, zero_point_a="integer"), 4 * (600 + 1500) + 32 * 70 + 4 * 20),
        ("direct", dict(bits=4, zero_point="float"), 4 * (600 + 1500) + 64 * 70),
        ("two_slice", dict(bits=4), 8 * (600 + 1500) + 64 * 70),
        ("mean_fix", dict(bits=4), 4 * (600 + 1500) + 64 * 70),
        ("lrqmm", dict(bits=4, rank=2), 4 * 2100 + 32 * 70 + 32 * 2 * (20 + 30 + 30 + 50)),
        ("lrqmm", dict(bits=4, rank=2, sides="b"), 4 * 2100 + 32 * 70 + 32 * 2 * (30 + 50)),
        ("lrqmm_aware", dict(bits=4, rank=25), 4 * 2100 + 32 * (70 + 20 * 50 + 25 * 80)),
        (
            "lrqmm",
            dict(bits=4, rank=2, factor_dtype="int8"),
            4 * 2100 + 32 * 70 + 8 * 2 * (20 + 30 + 30 + 50) + 32 * 8,
        ),
    ],
    ids=str,
)
def test_bits_that_hold_the_operands(method, settings, bits):
    assert lrqmm.get_method(method, **settings).cost(20, 30, 50).operand_bits == bits


@pytest.mark.parametrize("method", LOW_RANK)
@pytest.mark.parametrize(
    "settings",
    [
        dict(rank=1),
        dict(rank=32, sides="a"),
        dict(rank=32, sides="b"),
        dict(rank=16, terms="first", power_iterations=0),
        dict(rank=16, terms="exact", power_iterations=3, oversampling=0),
    ],
    ids=str,
)
def test_cost_model_follows_the_parameters(monkeypatch, method, settings):
    monkeypatch.setattr(torch_backend, "cpu_int_mm_refused", lambda: "")
    built = lrqmm.get_method(method, bits=4, **settings)
    A, B = (to("torch", X) for X in sample("normal", 300, 400, 350, seed=0))
    counted, model = count(built, A, B), built.cost(300, 400, 350)
    assert counted["integer_operations"] == model.integer_operations
    assert 0.95 < model.float_operations / counted["float_operations"] <= 1


def test_cost_of_two_slices_of_nine_bit_codes(monkeypatch):
    monkeypatch.setattr(torch_backend, "cpu_int_mm_refused", lambda: "")
    built = lrqmm.get_method("midpoint+two_slice", bits=8)
    A, B = (to("torch", X) for X in sample("normal", 64, 48, 32, seed=0))
    counted = count(built, A, B)["integer_operations"]
    assert counted == built.cost(64, 48, 32).integer_operations
