"""Our codes beside those of the libraries whose format or method it is, on seeded data.

Equal, or different as docs/explanation/peers.md says. Libraries that are not installed are skipped;
`make test-peers` installs those of the extra `peers`.
"""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.utils.extmath import randomized_svd

import lrqmm
from lrqmm.bench.sources.distributions import sample
from lrqmm.methods import gguf, hadamard
from lrqmm.methods.mxfp4 import METHOD as MXFP4
from lrqmm.methods.mxfp6 import METHOD as MXFP6
from lrqmm.methods.mxfp8 import METHOD as MXFP8
from lrqmm.methods.nvfp4 import METHOD as NVFP4
from lrqmm.products.minifloat import to_format
from lrqmm.products.quantize import Uniform
from lrqmm.products.rsvd import rsvd

DATA = ("normal", "uniform01", "exponential", "outliers")
SHAPE = (96, 512)


def rows(kind, seed=0):
    """96 x 512 float32, the rows that share scales."""
    return sample(kind, *SHAPE, 8, seed=seed)[0]


def differing(found, expected, relative=1e-6):
    """The share of values that differ by more than rounding."""
    found, expected = (np.asarray(X, np.float64) for X in (found, expected))
    assert found.shape == expected.shape
    size = np.abs(expected).max(axis=-1, keepdims=True)
    return float((np.abs(found - expected) > relative * size).mean())


def ours(kind, **how):
    return Uniform(**how).quantize(rows(kind)).dequantize()


# formats


def every_float():
    """Floats of all sizes around those of narrow formats, ties and their neighbours among them."""
    rng = np.random.default_rng(0)
    grid = np.ldexp(np.arange(2**7, dtype=np.float64), -4)  # half steps: ties
    near = np.concatenate(
        [np.nextafter(grid.astype("f"), np.float32(s)) for s in (-np.inf, np.inf)]
    )
    small = np.ldexp(np.arange(1, 65), -14)
    values = np.concatenate([grid, near, small, rng.standard_normal(2**14) * 4]).astype("f")
    return np.concatenate([values, -values])


@pytest.mark.parametrize(
    ("name", "kind"), [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)]
)
def test_eight_bit_floats_are_torchs(name, kind):
    from lrqmm.products import minifloat

    form = getattr(minifloat, name.upper())
    values = every_float()
    values = values[np.abs(values) <= 448]  # beyond, torch has NaN or infinity, ours saturate
    theirs = torch.from_numpy(values).to(kind).float().numpy()
    np.testing.assert_array_equal(to_format(np, values, form), theirs)


@pytest.mark.parametrize(
    ("name", "theirs", "top"),
    [
        ("E2M1", "float4_e2m1fn", 6), ("E2M3", "float6_e2m3fn", 7.5), ("E3M2", "float6_e3m2fn", 28),
        ("E4M3", "float8_e4m3fn", 448), ("E5M2", "float8_e5m2", 57344),
    ],
)  # fmt: skip
def test_narrow_floats_are_those_of_ml_dtypes(name, theirs, top):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    from lrqmm.products import minifloat

    values = every_float()
    values = values[np.abs(values) <= top]
    expected = values.astype(getattr(ml_dtypes, theirs)).astype(np.float32)
    np.testing.assert_array_equal(to_format(np, values, getattr(minifloat, name)), expected)


@pytest.mark.parametrize("kind", DATA)
def test_mxfp4_floor_is_ggufs(kind):
    X = rows(kind)
    found = MXFP4.build(scale_rule="floor").quantizer.quantize(X).dequantize()
    assert differing(found, gguf.rounded(X, "MXFP4")) < 1e-4  # ties


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize(("rule", "theirs"), [("ceil", "RCEIL"), ("floor", "FLOOR")])
@pytest.mark.parametrize(
    ("method", "form"),
    [(MXFP4, torch.float4_e2m1fn_x2), (MXFP6, "fp6_e2m3"), (MXFP8, torch.float8_e4m3fn)],
    ids=["mxfp4", "mxfp6", "mxfp8"],
)
def test_mxfp_is_torchaos(kind, rule, theirs, method, form):
    pytest.importorskip("torchao")
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.mx_tensor import MXTensor

    X = rows(kind)
    found = method.build(scale_rule=rule).quantizer.quantize(X).dequantize()
    expected = MXTensor.to_mx(torch.from_numpy(X), form, 32, ScaleCalculationMode[theirs])
    np.testing.assert_array_equal(found, expected.dequantize(torch.float32).numpy())


@pytest.mark.parametrize("kind", DATA)
def test_nvfp4_is_torchaos_of_two_scales(kind):
    pytest.importorskip("torchao")
    from lrqmm.methods.torchao_formats import rounded

    X = rows(kind)
    found = NVFP4.build().quantizer.quantize(X).dequantize()
    assert differing(found, rounded(torch.from_numpy(X), "nvfp4").numpy()) == 0


# integers


@pytest.mark.parametrize("kind", DATA)
def test_groups_of_eight_bits_are_ggufs_q8_0(kind):
    """But for its scales in float16: 2^-11 of a value."""
    found = ours(kind, bits=8, granularity="group:32")
    assert differing(found, gguf.rounded(rows(kind), "Q8_0"), 2.0**-10) < 1e-4


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize(("bits", "form"), [(4, "Q4_0"), (5, "Q5_0")])
def test_signed_levels_are_ggufs(kind, bits, form):
    """But for float16 scales, and ties, which it rounds up."""
    found = ours(kind, bits=bits, granularity="group:32", levels="signed")
    assert differing(found, gguf.rounded(rows(kind), form), 2.0**-9) < 2e-3


@pytest.mark.parametrize("kind", DATA)
def test_float_zero_points_are_ggufs_q4_1(kind):
    found = ours(kind, bits=4, granularity="group:32", zero_point="float")
    assert differing(found, gguf.rounded(rows(kind), "Q4_1"), 2.0**-8) < 2e-3


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("bits", [4, 8])
def test_even_levels_are_those_of_torchs_observers(kind, bits):
    from torch.ao.quantization.observer import PerChannelMinMaxObserver

    X = torch.from_numpy(rows(kind))
    top = 2 ** (bits - 1)
    limits = {"quant_min": -top, "quant_max": top - 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecation
        observer = PerChannelMinMaxObserver(
            dtype=torch.qint8, qscheme=torch.per_channel_symmetric, **limits
        )
        observer(X)
        scale, _ = observer.calculate_qparams()
    codes = (X / scale[:, None]).round().clamp(-top, top - 1)
    expected = (codes * scale[:, None]).numpy()
    assert differing(ours(kind, bits=bits, levels="even"), expected) < 1e-4


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("bits", [4, 8])
def test_integer_zero_points_are_those_of_torchs_observers(kind, bits):
    from torch.ao.quantization.observer import PerChannelMinMaxObserver

    X = torch.from_numpy(rows(kind))
    top = 2**bits - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        observer = PerChannelMinMaxObserver(
            dtype=torch.quint8, qscheme=torch.per_channel_affine, quant_min=0, quant_max=top
        )
        observer(X)
        scale, zero = (part[:, None] for part in observer.calculate_qparams())
    expected = (((X / scale).round() + zero).clamp(0, top) - zero) * scale
    assert differing(ours(kind, bits=bits, zero_point="integer"), expected.numpy()) < 1e-3


@pytest.mark.parametrize("kind", DATA)
def test_direct_is_bitsandbytes_int8(kind):
    functional = pytest.importorskip("bitsandbytes.functional")
    X = rows(kind)
    codes, scales, _ = functional.int8_vectorwise_quant(torch.from_numpy(X).half())
    half = X.astype(np.float16).astype(np.float32)  # it takes float16 alone
    mine = Uniform(bits=8).quantize(half)
    assert (mine.codes != codes.numpy()).mean() < 1e-4
    np.testing.assert_allclose(scales.numpy() / 127, mine.scale[:, 0], rtol=1e-6)


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_are_onnx_runtimes(kind, symmetric):
    """By the product with the identity: its kernel gives the dequantised weight."""
    pytest.importorskip("onnxruntime")
    B = np.ascontiguousarray(rows(kind).T)
    eye = np.eye(len(B), dtype=np.float32)
    how = {"levels": "signed"} if symmetric else {"zero_point": "integer"}
    zero_point = None if symmetric else "integer"
    found = ours(kind, bits=4, granularity="group:32", **how).T
    params = {"bits": 4, "group": 32, "zero_point": zero_point, "accuracy_level": 0}
    theirs = lrqmm.matmul(eye, B, "onnxruntime_nbits", **params)
    assert differing(found.T, theirs.T, 1e-3) < 5e-3


@pytest.mark.parametrize("kind", DATA)
def test_signed_levels_are_nncfs(kind):
    """By the product with the identity; NNCF's scales are float16, the product in bfloat16."""
    pytest.importorskip("nncf")
    B = np.ascontiguousarray(rows(kind).T)
    exact = np.linalg.norm(B)
    eye = np.eye(len(B), dtype=np.float32)
    found = ours(kind, bits=4, granularity="group:64", levels="signed").T
    theirs = lrqmm.matmul(eye, B, "openvino", weights="int4_sym", group=64)
    errors = [np.linalg.norm(X - B) / exact for X in (found, theirs)]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)


# factorisations and rotations


def test_hadamard_is_scipys():
    for size in (2, 16, 128):
        expected = scipy.linalg.hadamard(size) / np.sqrt(size)
        np.testing.assert_allclose(hadamard.orthogonal(size), expected, atol=1e-6)


@pytest.mark.parametrize("iterations", [0, 2])
def test_the_randomised_svd_is_as_good_as_torchs_and_scikit_learns(iterations):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((200, 30)) @ rng.standard_normal((30, 150)) / 5).astype(np.float32)
    X += rng.standard_normal(X.shape).astype(np.float32)
    rank, extra = 10, 6
    errors = {"lrqmm": [], "torch": [], "sklearn": []}
    for seed in range(5):
        u, s, vt = rsvd(X, rank, oversampling=extra, power_iterations=iterations, seed=seed)
        errors["lrqmm"].append(np.linalg.norm(X - (u * s) @ vt))
        torch.manual_seed(seed)
        u, s, v = torch.svd_lowrank(torch.from_numpy(X), rank + extra, niter=iterations)
        kept = (u[:, :rank] * s[:rank]) @ v[:, :rank].T
        errors["torch"].append(np.linalg.norm(X - kept.numpy()))
        u, s, vt = randomized_svd(
            X, rank, n_oversamples=extra, n_iter=iterations, random_state=seed
        )
        errors["sklearn"].append(np.linalg.norm(X - (u * s) @ vt))
    medians = {name: float(np.median(values)) for name, values in errors.items()}
    for name in ("torch", "sklearn"):
        assert medians["lrqmm"] == pytest.approx(medians[name], rel=0.02)
