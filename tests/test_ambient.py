"""No state of torch or NumPy that a user's program may be in changes an answer."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

import lrqmm
from lrqmm.products.backends import torch as backend
from lrqmm.products.packing import Packed, pack, unpack
from lrqmm.products.quantize import Uniform
from lrqmm.products.quantized import product
from lrqmm.products.rsvd import rsvd


@contextmanager
def changed(get, put, value):
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


def default_dtype(dtype):
    return changed(torch.get_default_dtype, torch.set_default_dtype, dtype)


def matmul_precision(name):
    return changed(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, name)


def deterministic():
    return changed(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    )


@contextmanager
def flushed_denormals():
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


STATES = {
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default dtype float16": lambda: default_dtype(torch.float16),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default device meta": lambda: torch.device("meta"),
    "autocast bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "matmul precision medium": lambda: matmul_precision("medium"),
    "matmul precision high": lambda: matmul_precision("high"),
    "deterministic": deterministic,
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "anomaly detection": torch.autograd.detect_anomaly,
    "float errors raise": lambda: np.errstate(all="raise"),
    "denormals flushed": flushed_denormals,
    "one thread": lambda: changed(torch.get_num_threads, torch.set_num_threads, 1),
}
ROUNDED = ("one thread",)
"""States in which BLAS may add up in another order: 1e-6 there, since nothing that is rounded to
codes may depend on it (`lrqmm.products.scaling`)."""
FUSED = ("direct", "mean_fix", "lrqmm", "lrqmm_aware")
CASES = [(name, {}) for name in lrqmm.list_methods()] + [
    (name, {"execution": "fused"}) for name in FUSED
]


def operands(library):
    rng = np.random.default_rng(20)
    A, B = rng.random((64, 96), np.float32), rng.standard_normal((96, 80), np.float32)
    return (A, B) if library == "numpy" else (torch.from_numpy(A), torch.from_numpy(B))


def multiplied(case, A, B):
    name, params = case
    method = lrqmm.get_method(name, **params)
    return method.matmul(A, method.prepare(B)), method.matmul(A, B)


def assert_same(found, usual, exact, bound=1e-6):
    for C, D in zip(found, usual, strict=True):
        C, D = np.asarray(C), np.asarray(D)
        assert C.dtype == D.dtype
        if exact:
            np.testing.assert_array_equal(C, D)
        else:
            assert np.linalg.norm(C - D) <= bound * np.linalg.norm(D)


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore::lrqmm.ToleranceNotReached")
@pytest.mark.parametrize("library", ["torch", "numpy"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join([case[0], *case[1].values()]))
def test_every_answer_is_the_usual_one_in_every_state(case, library):
    A, B = operands(library)
    try:
        usual = multiplied(case, A, B)
    except lrqmm.Unsupported as reason:
        with pytest.raises(lrqmm.Unsupported, match=str(reason)[:20]), STATES["inference mode"]():
            multiplied(case, A, B)
        return
    for name, state in STATES.items():
        with state():
            found = multiplied(case, A, B)
        assert_same(found, usual, exact=name not in ROUNDED)
    assert_same(multiplied(case, A, B), usual, exact=True)  # and nothing is left behind


CANCEL = {"lplr": 1e-5, "lplr_svd": 1e-5, "beta": 3e-6, "sigma_delta": 3e-6}
"""Methods whose last float32 sums are of terms larger than the answer: nothing is rounded to codes
after them, and their rounding is the answer's."""


@pytest.mark.filterwarnings("ignore::lrqmm.ToleranceNotReached")
@pytest.mark.parametrize("shape", [(16, 512, 24), (1, 700, 33), (96, 333, 16), (24, 33, 1000)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join([case[0], *case[1].values()]))
def test_thread_counts_change_last_bits_alone_where_sums_are_split(case, shape):
    """Long sums for few results: BLAS gives each thread a part of the sum."""
    m, k, n = shape
    rng = np.random.default_rng(m)
    A, B = (torch.from_numpy(rng.standard_normal(s, np.float32)) for s in ((m, k), (k, n)))
    try:
        usual = multiplied(case, A, B)
    except lrqmm.Unsupported:
        return  # asked of above
    with STATES["one thread"]():
        found = multiplied(case, A, B)
    assert_same(found, usual, exact=False, bound=CANCEL.get(case[0], 1e-6))


@pytest.mark.parametrize("case", CASES[-4:], ids=lambda case: case[0])
def test_what_inference_mode_prepares_multiplies_outside_of_it(case):
    A, B = operands("torch")
    method = lrqmm.get_method(case[0], **case[1])
    with torch.inference_mode():
        prepared = method.prepare(B.clone())
        inside = method.matmul(A.clone(), prepared)
    out = torch.empty_like(inside)
    assert method.matmul(A, prepared, out=out) is out
    assert torch.equal(out, inside)


@pytest.mark.parametrize("name", ["direct", "hadamard", "sgemm"])
def test_users_settings_are_as_they_were(name):
    A, B = operands("torch")
    with matmul_precision("medium"), torch.autocast("cpu", dtype=torch.bfloat16):
        before = torch.backends.mkldnn.matmul.fp32_precision
        lrqmm.matmul(A, B, name)
        with pytest.raises(ValueError, match="rank"):
            lrqmm.matmul(A, B, "lrqmm", rank=1000)
        assert torch.backends.mkldnn.matmul.fp32_precision == before
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.is_autocast_enabled("cpu")


def test_threads_share_the_precision_and_the_last_one_restores_it():
    inside, leave = threading.Barrier(3), threading.Event()

    def hold():
        with backend.exact_float32():
            inside.wait(10)
            assert leave.wait(10)

    with matmul_precision("medium"):
        before = torch.backends.mkldnn.matmul.fp32_precision
        threads = [threading.Thread(target=hold) for _ in range(2)]
        for thread in threads:
            thread.start()
        inside.wait(10)
        with backend.exact_float32():
            pass
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"  # two are still inside
        leave.set()
        for thread in threads:
            thread.join()
        assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_other_precisions_wait_for_their_turn():
    order, inside = [], threading.Event()

    def tf32():
        with backend.exact_float32("tf32"):
            order.append(torch.backends.cuda.matmul.fp32_precision)

    with backend.exact_float32():
        thread = threading.Thread(target=tf32)
        thread.start()
        inside.wait(0.1)
        order.append(torch.backends.cuda.matmul.fp32_precision)
    thread.join(10)
    assert order == ["ieee", "tf32"]


@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE", "SSE41", "DEFAULT"])
def test_integer_products_are_exact_whatever_onednn_may_use(isa):
    """Without an int8 dot product oneDNN's sums of 127 · 127 + 127 · 127 = 32258 saturate."""
    code = """
import torch, lrqmm
from lrqmm.doctor import examine
for m, k, n in ((1, 2, 1), (5, 7, 3), (33, 130, 65)):
    for x, y in ((127, 127), (-128, 127), (-128, -128)):
        a, b = torch.full((m, k), x, dtype=torch.int8), torch.full((k, n), y, dtype=torch.int8)
        assert (lrqmm.integer_matmul(a, b) == k * x * y).all(), (m, k, n, x, y)
for execution in ("plain", "fused"):
    C = lrqmm.matmul(torch.ones(1, 2), torch.ones(2, 1), "direct", execution=execution)
    assert C.item() == 2.0, (execution, C)
said = next(finding for finding in examine() if finding.what == "integer products")
assert said.found == lrqmm.integer_route(torch.ones(1, 1)), said
assert (said.state == "ok") == ("_int_mm" in said.found and "pieces" not in said.found), said
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("execution", ["plain", "fused"])
def test_an_array_written_to_counts_as_changed_for_autograd(execution):
    A, B = operands("torch")
    out, weight = torch.ones(64, 80), torch.ones(64, 80, requires_grad=True)
    loss = (out * weight).sum()
    lrqmm.matmul(A, B, "direct", execution=execution, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


PUBLIC = {
    "integer_matmul": lambda A, B: lrqmm.integer_matmul(to_codes(A), to_codes(B)),
    "quantize": lambda A, B: Uniform(bits=4, zero_point="float").quantize(A).dequantize(),
    "product": lambda A, B: product(Uniform(bits=8).quantize(A), Uniform(bits=8).quantize(B.T)),
    "pack": lambda A, B: unpack(pack(to_codes(A), 8), 8, A.shape[1]),
    "packed operand": lambda A, B: Packed.of(Uniform(bits=3).quantize(A), 3).quantized().codes,
    "rsvd": lambda A, B: rsvd(A, 4)[1],
    "predicted_error": lambda A, B: torch.tensor(
        lrqmm.products.apriori.predicted_error(A, B, bits=4), dtype=torch.float64, device="cpu"
    ),
    "tiles": lambda A, B: torch.from_numpy(
        lrqmm.matmul(A.numpy(), B.numpy(), "lrqmm", rank=4, memory_limit=1 << 22)
    ),
}


def to_codes(X):
    return (8 * X).round().clamp(-128, 127).to(torch.int8)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_every_public_function_gives_the_usual_answer_in_every_state(name):
    A, B = operands("torch")
    usual = PUBLIC[name](A, B)
    for state, enter in STATES.items():
        with enter():
            found = PUBLIC[name](A, B)
        assert found.device == usual.device, state
        assert_same([found], [usual], exact=state not in ROUNDED)


@pytest.mark.parametrize("execution", ["plain", "fused"])
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_layers_give_the_usual_answer_in_every_state(execution):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    X = torch.randn(3, 1, 6, 24)
    low = lrqmm.replace_layers(model, "lrqmm_aware", bits=8, rank=2, execution=execution)
    with torch.no_grad():
        usual = low(X)
        for state, enter in STATES.items():
            with enter():
                made = lrqmm.replace_layers(
                    model, "lrqmm_aware", bits=8, rank=2, execution=execution
                )
                found = [low(X), made(X)]
            if state.startswith("autocast"):  # gives that dtype, as float layers do
                limit = 2e-2
            else:
                assert all(y.dtype == torch.float32 for y in found), state
                limit = 1e-6 if state in ROUNDED else 0.0
            for y in found:
                missed = torch.linalg.norm(y.float() - usual) / torch.linalg.norm(usual)
                assert missed <= limit, (state, missed)


@pytest.mark.parametrize("execution", ["plain", "fused"])
def test_copies_of_layers_multiply_alike(execution):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 8))
    low = lrqmm.replace_layers(model, "lrqmm_aware", bits=4, rank=2, execution=execution)
    X = torch.randn(5, 24)
    with torch.no_grad():
        usual = low(X)
        for twin in (copy.deepcopy(low), pickle.loads(pickle.dumps(low))):
            assert torch.equal(twin(X), usual)
            twin[0].weight.mul_(2)
            assert not torch.equal(twin(X), usual)
            assert torch.equal(low(X), usual)
