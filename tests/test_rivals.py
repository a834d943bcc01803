"""The rivals' quantisers, transforms and compensators against brute force and their own claims."""

import itertools

import numpy as np
import pytest
import torch
from oracle import distance, product

import lrqmm
from lrqmm.bench.sources.distributions import sample
from lrqmm.methods import (
    flrq,
    gptq,
    hadamard,
    hqq,
    lbw,
    lopro,
    multipoint,
    octav,
    ozaki,
    preset,
    stochastic,
)
from lrqmm.products import minifloat
from lrqmm.products.minifloat import E2M1, E2M3, E3M2, E4M3, E5M2, to_format
from lrqmm.products.parts import Operand
from lrqmm.products.quantize import Uniform, clipped

SEEDS = range(5)


def rng(seed):
    return np.random.default_rng(seed)


def floats(seed, *shape):
    return rng(seed).standard_normal(shape).astype(np.float32)


def error(method, A, B, calibration=None, **params):
    found = lrqmm.get_method(method, **params).matmul(A, B, calibration=calibration)
    return distance(found, product(A, B))


def dequantized(quantizer, X, **given):
    return quantizer.quantize(X, **given).dequantize().astype(np.float64)


# quantisers


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
@pytest.mark.parametrize("draw", ["standard_normal", "laplace", "exponential", "random"])
def test_octav_is_within_three_percent_of_a_grid_search(bits, draw):
    x = getattr(rng(bits), draw)(size=(1, 4000)).astype(np.float32)
    top = 2 ** (bits - 1) - 1

    def squared(s):
        codes = np.clip(np.round(x / s * top), -top, top)
        return ((x - s / top * codes) ** 2).sum()

    least = min(squared(s) for s in np.abs(x).max() * np.linspace(0.02, 1.0, 800))
    found = ((x - dequantized(octav.Octav(bits=bits), x)) ** 2).sum()
    assert found <= 1.03 * least


@pytest.mark.parametrize("seed", SEEDS)
def test_lbw_ternary_is_the_best_of_all_patterns_and_exponents(seed):
    w = floats(seed, 1, 7)
    least = min(
        ((w[0] - 2.0**s * np.array(q)) ** 2).sum()
        for q in itertools.product((-1, 0, 1), repeat=7)
        for s in range(-6, 4)
    )
    found = ((w - dequantized(lbw.LBW(bits=2), w)) ** 2).sum()
    assert found == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("bits", [3, 4, 5])
def test_lbw_exponents_are_the_best_of_all(bits):
    w = floats(bits, 3, 200)
    n = 2 ** (bits - 2)
    powers = 2.0 ** np.arange(1 - n, 1)
    levels = np.concatenate([-powers, [0.0], powers])
    least = np.min(
        [
            (np.abs(w[:, :, None] - 2.0**s * levels).min(axis=2) ** 2).sum(axis=1)
            for s in range(-20, 12)
        ],
        axis=0,
    )
    found = ((w - dequantized(lbw.LBW(bits=bits), w)) ** 2).sum(axis=1)
    np.testing.assert_allclose(found, least, rtol=1e-5)


@pytest.mark.parametrize("data", ["normal", "uniform01", "exponential"])
@pytest.mark.parametrize("bits", [3, 4, 6])
def test_two_points_are_no_worse_than_two_slices(data, bits):
    _, B = sample(data, 40, 120, 60, seed=1)
    operand = Operand.quantize(B, Uniform(bits=bits), right=True)
    (point,) = multipoint.Multipoint(points=2).prepare(operand, None)
    second = operand.quantize_residual()
    by_points = operand.residual - point.dequantize().T
    by_slices = operand.residual - second.dequantize().T
    assert np.linalg.norm(by_points) <= np.linalg.norm(by_slices)


def test_points_fall_exponentially_and_stop_at_the_tolerance():
    A, B = sample("normal", 40, 120, 60, seed=0)
    operand = Operand.quantize(B, Uniform(bits=3), right=True)

    def left(**how):
        points = multipoint.Multipoint(**how).prepare(operand, None)
        return np.linalg.norm(operand.residual - sum(p.dequantize().T for p in points))

    missed = [left(points=n) for n in (2, 3, 4)]
    assert missed[1] < 0.3 * missed[0]
    assert missed[2] < 0.3 * missed[1]
    assert left(points=4, tolerance=1.0) == np.linalg.norm(operand.residual)
    assert missed[2] < left(points=4, tolerance=0.05) < missed[0]
    assert error("multipoint", A, B, bits=3, points=1) == error("direct", A, B, bits=3)


def test_two_int8_slices_are_a_hundred_times_better_than_one():
    for data in ("uniform01", "normal", "exponential"):
        A, B = sample(data, 96, 128, 80, seed=2)
        assert error("two_slice", A, B, bits=8) < error("direct", A, B, bits=8) / 100
        assert (
            error("ozaki", A, B, slices=2) < error("direct", A, B, bits=8) / 15
        )  # powers of two as scales


@pytest.mark.parametrize("kind", [E2M1, E2M3, E3M2, E4M3, E5M2], ids=str)
def test_narrow_floats_are_the_nearest_numbers_of_their_format(kind):
    steps = np.arange(2**kind.mantissa)
    normal = [
        2.0**e * (1 + steps / 2**kind.mantissa)
        for e in range(kind.low, int(np.floor(np.log2(kind.most))) + 1)
    ]
    small = 2.0**kind.low * steps / 2**kind.mantissa
    levels = np.unique(np.concatenate([small, *normal]))
    levels = levels[levels <= kind.most]
    levels = np.unique(np.concatenate([-levels, levels]))
    x = (floats(0, 4000) * kind.most / 3).astype(np.float32)
    x = np.concatenate([x, x * 2.0 ** (kind.low - 6), np.float32([0, 9 * kind.most])])
    found = to_format(np, x, kind)
    assert np.isin(found, levels.astype(np.float32)).all()
    nearest = np.abs(np.clip(x, -kind.most, kind.most)[:, None] - levels).min(axis=1)
    np.testing.assert_allclose(np.abs(np.clip(x, -kind.most, kind.most) - found), nearest)


@pytest.mark.parametrize(
    ("kind", "dtype"), [(E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)], ids=str
)
def test_float8_is_that_of_torch(kind, dtype):
    x = torch.from_numpy(np.clip(floats(1, 20000) * kind.most / 4, -kind.most, kind.most))
    x = torch.cat([x, x * 2.0**-18])
    np.testing.assert_array_equal(to_format(np, x.numpy(), kind), x.to(dtype).float().numpy())


def test_block_scales():
    A, B = sample("uniform01", 64, 128, 64, seed=0)
    errors = {rule: error("mxfp4", A, B, scale_rule=rule) for rule in ("floor", "ceil", "best")}
    assert errors["ceil"] < errors["floor"]  # saturated blocks
    assert errors["best"] <= 1.05 * errors["ceil"]
    scales = preset("mxfp4").quantizer().quantize(A).scale
    np.testing.assert_array_equal(np.log2(scales) % 1, 0)
    tiny = 1e-4 * A
    assert error("nvfp4", tiny, B) == pytest.approx(error("nvfp4", A, B), rel=0.05)
    rows = A * np.float32(2.0) ** -np.arange(64)[:, None].astype(np.float32)
    found = preset("nvfp4").quantizer().quantize(rows).dequantize()
    assert np.isfinite(found).all()


def test_stochastic_rounding_is_unbiased():
    x = floats(0, 20, 30)
    found = [dequantized(stochastic.Stochastic(bits=3, seed=seed), x) for seed in range(400)]
    one = np.abs(found[0] - x).max()
    assert np.abs(np.mean(found, axis=0) - x).max() < 0.25 * one  # five sigmas of a mean of 400
    assert np.abs(found[0] - x).max() < np.abs(x).max(axis=1).max() / 3 * (1 + 1e-6)


@pytest.mark.parametrize("bits", [2, 4])
def test_hqq_is_no_worse_than_the_zero_point_of_the_minimum(bits):
    x = (rng(0).standard_t(3, size=(16, 256))).astype(np.float32)

    def norm(iterations):
        q = hqq.HQQ(bits=bits, iterations=iterations, beta=10, ends_on="norm").quantize(x)
        groups = np.abs(x - q.dequantize()).reshape(16, -1, 64) / q.scale[:, :, None]
        return (groups**hqq.P).sum(axis=2)

    assert (norm(20) <= norm(0) * (1 + 1e-5)).all()
    assert norm(20).sum() < 0.99 * norm(0).sum()


def test_hqq_that_ends_on_a_mean_step_is_better_for_products_of_one_sided_data():
    for kind in ("uniform01", "exponential"):
        A, B = sample(kind, 128, 256, 96, seed=0)
        norm, mean = (error("hqq", A, B, bits=4, bits_a=8, ends_on=end) for end in ("norm", "mean"))
        assert mean < 0.9 * norm


def slow_gptq(W, X, bits, damping, order=None, plain=None):
    """Optimal brain surgeon in an order, H anew inverted for every column; the scales and offsets
    of `plain`, or symmetric ones."""
    W = W.astype(np.float64).copy()
    k = W.shape[1]
    half = 2 ** (bits - 1)
    bottom = 1 - half
    scale, offset = np.abs(W).max(axis=1, keepdims=True) / (half - 1), 0
    if plain is not None:
        bottom = -half
        scale = np.repeat(plain.scale, plain.group, axis=1)[:, :k].astype(np.float64)
        if plain.offset is not None:
            offset = np.repeat(plain.offset, plain.group, axis=1)[:, :k].astype(np.float64)
    W, scale = W - offset, np.broadcast_to(scale, W.shape)
    H = X.T.astype(np.float64) @ X
    H += damping * np.mean(np.diag(H)) * np.eye(len(H))
    codes = np.zeros_like(W)
    later = list(range(k) if order is None else order)
    while later:
        inverse = np.linalg.inv(H[np.ix_(later, later)])
        i = later[0]
        codes[:, i] = np.clip(np.round(W[:, i] / scale[:, i]), bottom, half - 1)
        lost = (W[:, i] - scale[:, i] * codes[:, i]) / inverse[0, 0]
        W[:, later] -= lost[:, None] * inverse[0]
        later = later[1:]
    return codes


@pytest.mark.parametrize("k", [5, 130, 150])  # below and above a block
def test_gptq_is_the_surgeon(k):
    W, X = floats(0, 12, k), floats(1, 2 * k, k) @ floats(2, k, k)
    found = gptq.GPTQ(bits=4, damping=0.01, order="natural", levels="odd").quantize(
        W, calibration=X
    )
    agree = (found.codes == slow_gptq(W, X, 4, 0.01)).mean()
    assert agree > 0.999
    plain = dequantized(Uniform(bits=4), W)
    assert np.linalg.norm(X @ (W - found.dequantize()).T) < np.linalg.norm(X @ (W - plain).T)


@pytest.mark.parametrize("order", ["natural", "activation", "groups"])
@pytest.mark.parametrize(
    "kind", [{"levels": "signed"}, {"levels": "even"}, {"zero_point": "float"},
             {"zero_point": "integer"}], ids=str,
)  # fmt: skip
@pytest.mark.parametrize("granularity", ["vector", "group:7", "group:16"])
def test_gptq_in_every_order_with_every_kind_of_levels(order, kind, granularity):
    k = 40
    W, X = floats(0, 12, k), floats(1, 3 * k, k) @ floats(2, k, k)
    X[:, [3, 17, 30]] *= 20
    quantizer = gptq.GPTQ(bits=4, order=order, granularity=granularity, **kind)
    plain = Uniform(bits=4, granularity=granularity, **kind).quantize(W)
    energy = (X.astype(np.float64) ** 2).sum(axis=0)
    columns = list(range(k))
    if order == "activation":
        columns.sort(key=lambda i: -energy[i])
    if order == "groups":
        members = {i: energy[[j for j in range(k) if j // plain.group == i // plain.group]].max()
                   for i in range(k)}  # fmt: skip
        columns.sort(key=lambda i: (-members[i], -energy[i]))
    quantized = quantizer.quantize(W, calibration=X)
    np.testing.assert_array_equal(quantized.scale, plain.scale)
    expected = slow_gptq(W, X, 4, 0.01, columns, plain)
    assert (quantized.codes == expected).mean() > 0.99
    # with 'even' levels the extremes are ties
    apart = np.abs(quantizer.quantize(W).codes.astype(int) - plain.codes)
    assert apart.max() <= ("even" in kind.values())
    assert quantizer.offsets == ("zero_point" in kind)


def test_gptq_has_levels_or_zero_points():
    W, X = floats(0, 12, 40), floats(1, 99, 40)
    usual, signed = (gptq.GPTQ(bits=4, **kind) for kind in ({}, {"levels": "signed"}))
    codes = [each.quantize(W, calibration=X).codes for each in (usual, signed)]
    np.testing.assert_array_equal(*codes)
    for kind in ("odd", "signed", "even"):
        with pytest.raises(ValueError, match=f"levels is '{kind}'; allowed: None where"):
            gptq.GPTQ(levels=kind, zero_point="integer")
    with pytest.raises(ValueError, match=r"levels is 'sined'.*allowed: None, 'odd', 'signed'"):
        gptq.GPTQ(levels="sined", zero_point="float")


def test_gptq_with_few_outlier_columns_rounds_them_first():
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((256, 512)), rng.standard_normal((512, 384))
    X[:, ::64] *= 20
    X, W = X.astype(np.float32), W.astype(np.float32)
    C = X.astype(np.float64) @ W

    def missed(**params):
        codes = gptq.GPTQ(bits=4, **params).quantize(W.T, calibration=X)
        return np.linalg.norm(X @ codes.dequantize().T - C) / np.linalg.norm(C)

    assert missed() < 0.5 * missed(order="natural", levels="odd")
    assert missed(granularity="group:128") < missed(granularity="group:128", order="groups")
    assert missed(clip=True) < missed()


@pytest.mark.parametrize("kind", [{}, {"zero_point": "float"}], ids=str)
def test_gptq_cuts_where_the_squared_error_is_least(kind):
    W = np.random.default_rng(5).standard_t(3, (30, 64)).astype(np.float32) * np.float32(2.0**90)
    for granularity in ("vector", "group:16", "tensor"):
        usual, cut = (
            gptq.GPTQ(bits=3, clip=clip, granularity=granularity, **kind).quantize(W)
            for clip in (False, True)
        )
        before, after = (
            np.linalg.norm((W - x.dequantize()).astype(np.float64)) for x in (usual, cut)
        )
        assert after < 0.99 * before


@pytest.mark.parametrize("name", ["gptq", "hqq", "bc4", "lbw", "lopro", "twn"])
def test_weight_only_methods_have_zero_points_for_activations(name):
    A, B = sample("uniform01", 60, 70, 50, seed=0)
    bits = {} if name in ("bc4", "twn") else {"bits": 4}
    found = [error(name, A, B, bits_a=4, zero_point_a=z, **bits) for z in (None, "integer")]
    assert found[0] != found[1]
    method = lrqmm.get_method(name, bits_a=4, zero_point_a="integer", granularity="vector", **bits)
    quantizer = method.quantizer
    assert quantizer.left == Uniform(bits=4, zero_point="integer")


def test_gptq_without_correlations_is_rounding():
    W, X = floats(0, 9, 40), np.eye(40, dtype=np.float32)
    found = gptq.GPTQ(bits=4).quantize(W, calibration=X)
    plain = Uniform(bits=4, levels="signed").quantize(W)
    np.testing.assert_array_equal(found.codes, plain.codes)


# transforms


@pytest.mark.parametrize("k", [1, 2, 3, 7, 12, 64, 96, 147, 150])
@pytest.mark.parametrize("block", [None, 8])
def test_rotations_keep_the_product(k, block):
    A, B = floats(0, 9, k), floats(1, k, 11)
    rotation = hadamard.Hadamard(block=block)
    signs = rotation.fit(B, Uniform(), None)
    left, right = rotation.left(A, signs), rotation.right(B, signs)
    assert distance(left @ right, product(A, B)) < 1e-5
    np.testing.assert_allclose(np.linalg.norm(left, axis=1), np.linalg.norm(A, axis=1), rtol=1e-5)


@pytest.mark.parametrize("name", sorted({*lrqmm.list_components()["transforms"]} - {"espace"}))
def test_transforms_keep_the_product(name):
    A, B = sample("outliers", 70, 48, 50, seed=0)
    part = preset(name).transform()
    fitted = part.fit(B, Uniform(bits=4), A)
    assert distance(part.left(A, fitted) @ part.right(B, fitted), product(A, B)) < 1e-5
    A[:, 7], B[9] = 0, 0  # a dead channel
    fitted = part.fit(B, Uniform(bits=4), A)
    assert distance(part.left(A, fitted) @ part.right(B, fitted), product(A, B)) < 1e-5


def test_hadamard_helps_outliers_and_hurts_uniform():
    A, B = sample("outliers", 128, 256, 96, seed=0)
    assert error("hadamard", A, B, bits=4) < 0.6 * error("direct", A, B, bits=4)
    A, B = sample("uniform01", 128, 256, 96, seed=0)
    assert error("hadamard", A, B, bits=4) > 1.3 * error("direct", A, B, bits=4)


def channels(seed=0, m=96, k=128, n=64):
    """Activations of which a few columns are large, and a weight."""
    A, B = floats(seed, m, k), floats(seed + 1, k, n)
    A[:, rng(seed).choice(k, 4, replace=False)] *= 30
    return A, B


@pytest.mark.parametrize("name", ["smoothquant", "awq", "resq", "hadamard"])
def test_transforms_help_where_some_channels_are_large(name):
    A, B = channels()
    assert error(name, A, B, bits=4) < 0.7 * error("direct", A, B, bits=4)


def test_awq_is_no_worse_than_nothing_on_its_sample():
    A, B = sample("normal", 64, 96, 48, seed=0)
    part = preset("awq").transform()
    for quantizer in (Uniform(bits=3), Uniform(bits=4, granularity="group:32")):
        s = part.fit(B, quantizer, A)
        scaled = Operand.quantize(B * s[:, None], quantizer, right=True).approx
        plain = Operand.quantize(B, quantizer, right=True).approx
        exact = A @ B
        assert np.linalg.norm(exact - (A / s) @ scaled) <= np.linalg.norm(exact - A @ plain)


def test_permutation_helps_groups():
    A, B = channels()
    how = dict(bits=4, granularity="group:16")
    assert error("permutation", A, B, **how) < 0.9 * error("direct", A, B, **how)
    assert error("permutation", A, B, bits=4) == pytest.approx(
        error("direct", A, B, bits=4), rel=1e-3
    )


# compensators


@pytest.mark.parametrize("name", ["lqer", "l2qer", "qera", "eora"])
def test_full_rank_on_the_weight_side_leaves_the_activations_error(name):
    A, B = channels()
    A_ = dequantized(Uniform(bits=3), A)
    B_ = dequantized(Uniform(bits=3), B.T).T
    C = lrqmm.get_method(name, bits=3, rank=64).matmul(A, B)
    assert distance(C, A_ @ B_ + A @ (B - B_)) < 1e-5
    for r in (0, 64):
        assert lrqmm.get_method(name, bits=3, rank=r).matmul(A, B).shape == C.shape
    assert error(name, A, B, bits=3, rank=0) == pytest.approx(error("direct", A, B, bits=3))


@pytest.mark.parametrize("name", ["lowrank_first", "svdquant", "arhq", "lrqmm_first"])
def test_full_rank_taken_out_first_leaves_nothing(name):
    A, B = channels(m=150)
    full = {"rank": 128 if name == "lrqmm_first" else 64}
    assert error(name, A, B, bits=3, **full) < 2e-5


@pytest.mark.parametrize("rank", [3, 17])
def test_eora_reaches_the_objective_of_qera(rank):
    A, B = channels()
    B_ = dequantized(Uniform(bits=3), B.T).T
    by_rank = {}
    for name in ("eora", "qera", "l2qer", "lqer"):
        method = lrqmm.get_method(name, bits=3, rank=rank)
        operand = Operand.quantize(B, Uniform(bits=3), right=True)
        U, V = method.compensator.prepare(operand, A)
        by_rank[name] = np.linalg.norm(A.astype(np.float64) @ (B - B_ - U @ V.astype(np.float64)))
    assert by_rank["eora"] == pytest.approx(by_rank["qera"], rel=1e-4)
    # of all corrections of that rank the best: the tail of the singular values of A R_B
    tail = np.linalg.svd(A.astype(np.float64) @ (B - B_), compute_uv=False)[rank:]
    assert by_rank["qera"] == pytest.approx(np.linalg.norm(tail), rel=1e-3)
    assert by_rank["qera"] < by_rank["l2qer"] < by_rank["lqer"]


def test_srr_splits_between_its_two_ends():
    A, B = channels()
    B = B + 20 * np.outer(floats(5, 128), floats(6, 64))  # one direction stands out
    method = lrqmm.get_method("srr", bits=3, rank=8).compensator
    first = method.split(B, 8, method.fitted_metric(A))
    assert 1 <= first < 8
    found = error("srr", A, B, bits=3, rank=8)
    assert found < error("qera", A, B, bits=3, rank=8)
    C = lrqmm.get_method("srr", bits=3, rank=64).matmul(A, B)
    assert C.shape == (96, 64)


def test_taking_out_in_turns_is_no_worse_than_once():
    _, B = channels()
    once, turns = (
        preset("lowrank_first")
        .compensator(rank=8, iterations=i)
        .quantize_right(B, Uniform(bits=3), None)[0]
        for i in (0, 10)
    )
    assert np.linalg.norm(turns.residual) < np.linalg.norm(once.residual)
    assert np.linalg.norm(once.residual) < np.linalg.norm(B - dequantized(Uniform(bits=3), B.T).T)


@pytest.mark.parametrize("granularity", ["vector", "group:5", "tensor"])
def test_clipping_cuts_each_vector_at_a_share_of_its_maximum(granularity):
    x = floats(0, 6, 17)
    found = clipped(x, 0.7, granularity)
    parts = {
        "vector": [np.s_[i] for i in range(6)],
        "group:5": [np.s_[i, j : j + 5] for i in range(6) for j in range(0, 17, 5)],
        "tensor": [np.s_[:]],
    }[granularity]
    for part in parts:
        top = np.float32(0.7) * np.abs(x[part]).max()
        np.testing.assert_allclose(found[part], np.clip(x[part], -top, top), rtol=1e-6)


def test_flrq_takes_the_rank_that_pays():
    B = floats(0, 96, 80)
    spiked = B + sum(40 * np.outer(np.eye(96)[7 * i], np.eye(80)[5 * i]) for i in range(3)).astype(
        np.float32
    )

    def found(X, growth, rank=16):
        part = flrq.FLRQ(rank=rank, growth=growth, factor_dtype="int8", bits=4)
        assert part.rank_that_pays(X) <= part.most(96, 80)
        return part.rank_that_pays(X)

    assert found(B, 1.0) == 0  # a normal matrix: no rank makes its range smaller
    for growth in (0.0, 0.1, 0.2, 0.5):  # here three do, and then growth is what ends it
        assert found(spiked, growth) == int(growth * 4 * 96 * 80 / (8 * (96 + 80)))
    assert found(spiked, 0.5, rank=2) == 2
    how = dict(bits=4, rank=16, factor_dtype="int8")
    bits = [
        lrqmm.get_method("flrq", growth=growth, **how).cost(50, 96, 80).operand_bits
        for growth in (0.0, 0.2)
    ]
    assert bits[1] - bits[0] == (8 * (96 + 80) + 64) * int(0.2 * 4 * 96 * 80 / (8 * (96 + 80)))
    U, V = flrq.FLRQ().sketch(B[:, :12], 12)
    np.testing.assert_allclose(U @ V, B[:, :12], atol=1e-4)


def test_flrq_is_no_worse_than_rounding_on_its_sample():
    A, B = channels()
    part = flrq.FLRQ(rank=8, iterations=5)
    operand, _ = part.quantize_right(B, Uniform(bits=3), A)
    plain = Operand.quantize(B, Uniform(bits=3), right=True)
    missed = [np.linalg.norm(A @ x.residual) for x in (operand, plain)]
    assert missed[0] < 0.95 * missed[1]
    more = flrq.FLRQ(rank=8, iterations=0).quantize_right(B, Uniform(bits=3), A)[0]
    assert missed[0] <= np.linalg.norm(A @ more.residual)


def slow_lopro(A, B, X, rank, alone, bits):
    """With every matrix written out."""
    alpha = np.sqrt((X.astype(np.float64) ** 2).mean(axis=0))
    W, s, Vt = np.linalg.svd(alpha[:, None] * B, full_matrices=False)
    low = (W[:, :rank] * s[:rank]) @ Vt[:rank] / alpha[:, None]
    rest = B - low
    order = np.argsort(-(alpha**2) / np.abs(rest).mean(axis=1))
    T = np.eye(len(B))[:, order]
    first = round(alone * len(B))
    signs = np.sign(hadamard.Hadamard().fit(B, Uniform(), None))[first:]
    turn = hadamard.rotate(np.eye(len(B) - first, dtype=np.float32) * signs)
    T[:, first:] = T[:, first:] @ turn
    right, left = (T.T @ rest).T, A @ T
    codes = slow_gptq(right, (X @ T).astype(np.float32), bits, 0.01)
    scale = np.abs(right).max(axis=1) / (2 ** (bits - 1) - 1)
    A_ = dequantized(Uniform(bits=bits), left.astype(np.float32))
    return A_ @ (scale[:, None] * codes).T + A @ low


@pytest.mark.parametrize("alone", [0.0, 0.25, 1.0])
def test_lopro_is_the_slow_one(alone, monkeypatch):
    """But for float8, whose rounding moves codes that feedback then moves further."""
    monkeypatch.setattr(lopro, "in_float8", lambda low_rank: low_rank)
    A, B = channels(m=200)
    X = channels(seed=3, m=300)[0]
    method = lrqmm.get_method("lopro", bits=4, rank=8, alone=alone)
    found = method.matmul(A, B, calibration=X)
    slow = slow_lopro(A, B, X, 8, alone, 4)
    assert distance(found, slow) < 0.1 * distance(slow, product(A, B))
    monkeypatch.undo()
    rounded = method.matmul(A, B, calibration=X)
    assert distance(rounded, product(A, B)) == pytest.approx(
        distance(slow, product(A, B)), rel=0.05
    )


def test_lopro_at_full_rank_leaves_what_float8_loses(monkeypatch):
    A, B = channels()
    how = dict(rank=64, bits_a=8)
    assert error("lopro", A, B, bits=3, **how) < error("lopro", A, B, bits=3, rank=0, bits_a=8) / 10
    U, V = lopro.in_float8((A, B))
    assert 0.01 < distance(U, A) < 2.0**-4
    exact = torch.from_numpy(V / np.abs(V).max(axis=1, keepdims=True) * 448)
    assert distance(exact.to(torch.float8_e4m3fn).float().numpy(), exact.numpy()) < 1e-6
    monkeypatch.setattr(lopro, "in_float8", lambda factors: factors)
    found = [error("lopro", A, B, bits=b, **how) for b in (3, 8)]
    assert found[0] == pytest.approx(found[1], rel=0.01)


def test_sparse_residuals():
    A, B = sample("exponential", 60, 80, 50, seed=0)
    assert error("sparse_residual", A, B, bits=4, density=0.0) == error("direct", A, B, bits=4)
    whole = error("full_residual", A, B, bits=4)
    assert error("sparse_residual", A, B, bits=4, density=1.0) == pytest.approx(whole, rel=1e-4)
    errors = [error("sparse_residual", A, B, bits=4, density=d) for d in (0, 0.1, 0.3, 1)]
    assert errors == sorted(errors, reverse=True)


# splitting


@pytest.mark.parametrize("slices", [2, 3, 4])
def test_ozaki_slices_hold_seven_bits_each(slices):
    A, B = sample("normal", 40, 90, 30, seed=0)
    codes, power = ozaki.split(A, slices)
    whole = sum(power * 2.0 ** (1 - 7 * i) * q for i, q in enumerate(codes, 1))
    assert np.abs(whole - A).max() <= np.abs(A).max() * 2.0 ** (1 - 7 * slices)
    found = error("ozaki", A, B, slices=slices)
    assert found < 4 * 2.0 ** (-7 * slices + 2) + 1e-7
    assert all(np.abs(q.astype(int)).max() <= 64 for q in codes)


def test_three_products_of_narrow_floats():
    A, B = sample("normal", 60, 90, 50, seed=0)
    assert 2.0**-24 < error("bf16x3", A, B) < 2.0**-15
    assert error("tf32x3", A, B) < 2.0**-20
    parts = lrqmm.get_method("bf16x3")._split(A)
    for part in parts:
        exact = torch.from_numpy(part)
        assert (exact.bfloat16().float() == exact).all()


# calibration


def test_a_sample_is_used_and_prepared_once():
    A, B = channels()
    X = channels(seed=9)[0]
    for name in ("qera", "smoothquant", "gptq", "awq", "resq"):
        method = lrqmm.get_method(name, bits=4)
        assert method.calibrated
        same, held_out = method.matmul(A, B), method.matmul(A, B, calibration=X)
        assert distance(same, held_out) > 1e-6
        np.testing.assert_array_equal(held_out, method.matmul(A, method.prepare(B, calibration=X)))
        np.testing.assert_array_equal(same, method.matmul(A, B, calibration=A))
        np.testing.assert_array_equal(same, method.matmul(A, method.prepare(B)))
    with pytest.raises(
        ValueError, match=r"calibration has shape .* and B .*; allowed: as many col"
    ):
        method.matmul(A, B, calibration=X[:, :5])
    with pytest.raises(ValueError, match="B is prepared; allowed: in `prepare`"):
        method.matmul(A, method.prepare(B), calibration=X)


def test_a_method_nobody_wrote_a_class_for():
    A, B = channels()
    found = error("hadamard+octav+lrqmm", A, B, bits=4, rank=8)
    assert found < error("octav", A, B, bits=4)
    both = error("hadamard+lrqmm_aware", A, B, bits=4, rank=8)
    assert both < error("hadamard", A, B, bits=4)


@pytest.mark.parametrize("name", lrqmm.list_methods())
def test_every_method_is_between_exact_and_nonsense(name):
    A, B = (torch.from_numpy(X) for X in sample("uniform01", 50, 70, 40, seed=0))
    try:
        # at one bit sigma-delta needs a partner that is smooth
        C = lrqmm.get_method(name, **({"bits": 2} if name == "sigma_delta" else {})).matmul(A, B)
    except lrqmm.Unsupported as reason:
        pytest.skip(str(reason))
    assert 0 < distance(C.numpy(), product(A.numpy(), B.numpy())) < 0.3


def test_formats_are_counted_in_bits():
    for name, bits in (
        ("multipoint", 12 + 48 / 1024),
        ("mxfp4", 4 + 8 / 32),
        ("nvfp4", 4 + 8 / 16),
        ("mxfp8", 8 + 8 / 32),
    ):
        built = lrqmm.get_method(name)
        found = built.cost(256, 1024, 256).operand_bits / (2 * 256 * 1024)
        assert found == pytest.approx(bits, rel=1e-3)
    assert minifloat.E4M3.bits == 8
