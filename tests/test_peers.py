"""Products of other libraries: what they multiply, what they leave behind, what they refuse."""

import threading
import warnings

import numpy as np
import pytest
import torch
from oracle import PEERS, distance, product, to_numpy

import lrqmm
from lrqmm.methods import gguf, preset, torch_int8
from lrqmm.products.quantize import Uniform

SHAPES = [(1, 1, 1), (1, 333, 1), (37, 333, 77), (64, 96, 80), (3, 64, 130)]


def normal(m, k, n, seed=0):
    rng = np.random.default_rng([seed, m, k, n])
    return rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)


def multiply(name, A, B, **params):
    method = lrqmm.get_method(name, **params)
    try:
        return method.matmul(A, B)
    except lrqmm.Unsupported as reason:
        pytest.skip(str(reason))


# what every one keeps


@pytest.mark.parametrize("name", PEERS)
def test_numpy_and_torch_arrays_of_any_float_have_the_same_product(name):
    A, B = normal(37, 333, 77)
    C = multiply(name, A, B)
    assert isinstance(C, np.ndarray)
    assert C.dtype == np.float32
    found = multiply(name, torch.from_numpy(A), torch.from_numpy(B))
    np.testing.assert_array_equal(found.numpy(), C)
    wide = multiply(name, A.astype(np.float64), B.astype(np.float64))
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide, C)
    strided = multiply(name, np.asfortranarray(A), np.repeat(B, 2, axis=1)[:, ::2])
    assert distance(strided, C) < 1e-6


@pytest.mark.parametrize("name", [name for name in PEERS if not preset(name).calibrated])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_weight_made_ready_once_serves_any_number_of_rows(name, shape):
    A, B = normal(*shape)
    expected = multiply(name, A, B)
    method = lrqmm.get_method(name)
    ready = method.prepare(B)
    out = np.empty_like(expected)
    assert method.matmul(A, ready, out=out) is out
    np.testing.assert_array_equal(out, expected)
    several = np.concatenate([A, A, A])
    assert method.matmul(several, ready).shape == (3 * shape[0], shape[2])
    assert distance(method.matmul(several, ready)[: shape[0]], expected) < 1e-6
    batch = method.matmul(np.stack([A, 2 * A]), B)
    assert distance(batch[1], 2 * expected) < 1e-6


@pytest.mark.parametrize("name", PEERS)
def test_zeros_and_nothing(name):
    A, B = normal(4, 64, 32)
    assert not multiply(name, 0 * A, B).any()
    assert not multiply(name, A, 0 * B).any()
    B[:, 5] = 0
    assert not np.abs(multiply(name, A, B)[:, 5]).any()
    assert multiply(name, A[:0], B).shape == (0, 32)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_one_error(name, wrong):
    A, B = normal(4, 64, 32)
    A[2, 3] = wrong
    with pytest.raises(ValueError, match=r"A holds .* at \(2, 3\); allowed: finite"):
        lrqmm.get_method(name).matmul(A, B)


@pytest.mark.parametrize("name", PEERS)
def test_arrays_elsewhere_are_one_error(name):
    strict = pytest.importorskip("array_api_strict")
    A, B = (strict.asarray(X) for X in normal(4, 64, 32))
    with pytest.raises(lrqmm.Unsupported, match=f"{name} (multiplies NumPy and torch|needs)"):
        lrqmm.get_method(name).matmul(A, B)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", PEERS)
def test_cuda_tensors_are_one_error(name):
    A, B = (torch.from_numpy(X).cuda() for X in normal(4, 64, 32))
    with pytest.raises(lrqmm.Unsupported, match=f"{name} (multiplies NumPy and torch|needs)"):
        lrqmm.get_method(name).matmul(A, B)


@pytest.mark.parametrize("name", PEERS)
def test_none_is_usual_and_all_say_whose_they_are(name):
    recipe = preset(name)
    assert not recipe.usual
    assert recipe.packages
    assert "a CPU" in recipe.needs
    left, right = recipe.operand_bits(64, 128, 32)
    assert 4 * 64 * 128 < left <= 32 * 64 * 128
    assert 4 * 128 * 32 < right < 10 * 128 * 32


def test_a_library_that_is_not_installed_is_one_error_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(gguf.Gguf, "modules", ("no_such_module",))
    A, B = normal(4, 64, 32)
    wanted = r"gguf needs no_such_module, .* pip install 'lrqmm\[bench\]'"
    with pytest.raises(lrqmm.Unsupported, match=wanted):
        lrqmm.matmul(A, B, "gguf")


# torch


@pytest.mark.parametrize("engine", ["x86", "onednn"])
def test_torch_int8_is_the_product_of_codes_as_torchs_own_observers_find_them(engine):
    from torch.ao.quantization.observer import MinMaxObserver, PerChannelMinMaxObserver

    A, B = normal(37, 333, 77)
    X, W = torch.from_numpy(A), torch.from_numpy(B).T.contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecation
        left = MinMaxObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
        right = PerChannelMinMaxObserver(dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
        left(X), right(W)
        (s, z), (t, _) = left.calculate_qparams(), right.calculate_qparams()
    a = ((X / s).round() + z).clamp(0, 255) - z
    w = (W / t[:, None]).round().clamp(-128, 127)
    expected = product(a.numpy() * float(s), w.numpy().T * t.numpy())
    found = multiply("torch_int8", A, B, engine=engine)
    assert distance(found, expected) < 1e-3  # a few codes differ: it multiplies by 1 / s
    assert distance(found, product(A, B)) > 5e-3


def test_torch_qlinear_is_direct_bit_for_bit_but_for_the_order_of_the_scales():
    for shape in SHAPES:
        A, B = normal(*shape)
        found = multiply("torch_qlinear", A, B)
        assert distance(found, lrqmm.matmul(A, B, "direct", bits=8)) < 3e-7


@pytest.mark.parametrize("group", [32, 64])
def test_torch_int4_is_the_product_of_its_grid(group):
    A, B = normal(20, 128, 48)
    groups = B.T.astype(np.float64).reshape(48, -1, group)
    low, high = groups.min(axis=2, keepdims=True), groups.max(axis=2, keepdims=True)
    step = (high - low) / 15
    W = (low + step * np.rint((groups - low) / step)).reshape(48, 128).T
    found = multiply("torch_int4", A, B, group=group, compute="float32")
    assert distance(found, product(A, W)) < 1e-5
    assert 1e-4 < distance(multiply("torch_int4", A, B, group=group), found) < 1e-2


def test_the_engine_of_torch_is_the_users_again():
    engines = torch.backends.quantized
    A, B = normal(16, 64, 32)
    usual = engines.engine
    other = next(name for name in engines.supported_engines if name not in ("none", usual))
    try:
        for name in (usual, other):
            engines.engine = name
            for engine in ("x86", "onednn"):
                multiply("torch_int8", A, B, engine=engine)
                assert engines.engine == name
    finally:
        engines.engine = usual
    missing = pytest.raises(lrqmm.Unsupported, match="no engine 'none of these' here; it has")
    with missing, torch_int8.engine_of_torch("none of these"):
        pass
    assert engines.engine == usual


def test_threads_pack_for_their_own_engines():
    A, B = normal(40, 333, 77)
    expected = {name: multiply("torch_int8", A, B, engine=name) for name in ("x86", "onednn")}
    wrong = []

    def work(name):
        for _ in range(20):
            C = lrqmm.matmul(A, B, "torch_int8", engine=name)
            if not np.array_equal(C, expected[name]):
                wrong.append(name)

    usual = torch.backends.quantized.engine
    threads = [threading.Thread(target=work, args=(name,)) for name in 2 * [*expected]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert torch.backends.quantized.engine == usual


def test_torch_int8_keeps_the_digits_of_small_operands():
    A, B = normal(16, 64, 32)
    expected = multiply("torch_int8", A, B)
    for power in (2.0**-12, 2.0**-30):
        found = multiply("torch_int8", A * np.float32(power), B)
        assert distance(found / power, expected) < 1e-6


# gguf


def test_gguf_is_the_product_of_what_its_quantiser_made():
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    A, B = normal(20, 128, 48)
    power = np.float32(2.0 ** np.floor(np.log2(np.abs(B).max())))
    for format in gguf.BYTES:
        kind = GGMLQuantizationType[format]
        W = dequantize(quantize(np.ascontiguousarray(B.T) / power, kind), kind) * power
        assert distance(multiply("gguf", A, B, format=format), product(A, W.T)) < 1e-6
        size = quantize(np.ascontiguousarray(B.T), kind).nbytes
        assert preset("gguf").build(format=format).operand_bits(20, 128, 48)[1] == 8 * size


def test_ours_beside_ggufs_codes():
    """Q8_0 is `direct` in groups of 32 but for its float16 scales."""
    _, B = normal(1, 128, 48)
    ours = Uniform(bits=8, granularity="group:32").quantize(np.ascontiguousarray(B.T)).dequantize()
    assert distance(gguf.rounded(np.ascontiguousarray(B.T), "Q8_0"), ours) < 1e-3
    assert to_numpy(ours).shape == (48, 128)
