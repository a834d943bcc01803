"""Compiled passes get no pointer before device, dtype, shape and strides are what they take."""

import pytest
import torch

from lrqmm.fused import cpu, passes, passes_numba

M, N, Q = 7, 11, 3


def floats(*shape):
    return torch.randn(*shape, dtype=torch.float32)


def codes(*shape):
    return torch.zeros(*shape, dtype=torch.int8)


def calls():
    """Each pass with arguments that it takes."""
    sums = torch.ones(M + 2, N + 2, dtype=torch.int32)
    pairs = torch.ones(M, 2 * Q, dtype=torch.int32)
    return {
        "quantize_rows": dict(x=floats(M, N), top=7, mode="signed", codes=codes(M + 2, N),
                              digits=codes(M, N), scale=floats(M)),
        "quantize_columns": dict(x=floats(M, N), top=7, mode="truncate", codes=codes(M, N + 2),
                                 digits=codes(M, N), scale=floats(N)),
        "quantize_rows_affine": dict(x=floats(M, N), top=7, codes=codes(M, N), digits=codes(M, N),
                                     scale=floats(M), zero=floats(M)),
        "scale_update": dict(sums=sums, s=floats(M), t=floats(N), X=floats(M, Q), Y=floats(N, Q),
                             C=floats(M, N)),
        "thin_codes": dict(X=floats(N, Q), weight=floats(N), first=codes(Q, N),
                           second=codes(Q, N), scale=floats(Q)),
        "merge": dict(sums=pairs, f=floats(M), g=floats(Q), out=floats(M, Q)),
    }  # fmt: skip


WRONG = {
    "another dtype": lambda x: x.to(torch.bfloat16 if x.dtype == torch.float32 else torch.int16),
    "a wider dtype": lambda x: x.to(torch.float64 if x.dtype == torch.float32 else torch.int64),
    "no memory": lambda x: x.to("meta"),
    "too short": lambda x: x[:-3],
    "too narrow": lambda x: x[:, :-3] if x.ndim == 2 else x[:-3],
    "every other element": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "one dimension more": lambda x: x[None],
}
CASES = [
    (name, argument, wrong)
    for name, arguments in calls().items()
    for argument, value in arguments.items()
    for wrong in WRONG
    if isinstance(value, torch.Tensor)
    # a call's shapes follow from these; and of these any strides are taken
    and not (argument in ("x", "X", "C", "out") and wrong in ("too short", "too narrow"))
    and not ((name, argument) in {("thin_codes", "first"), ("merge", "sums")}
             and wrong == "every other element")
]  # fmt: skip


@pytest.fixture(params=["C++", "numba"], autouse=True)
def implementation(request, monkeypatch):
    if request.param == "numba":
        monkeypatch.setattr(passes, "_library", lambda: None)
    elif passes.implementation() == "numba":
        pytest.skip("no compiled passes here")


@pytest.mark.parametrize("name", calls())
def test_a_pass_takes_what_it_is_made_for(name):
    getattr(passes, name)(**calls()[name])


@pytest.mark.parametrize(("name", "argument", "wrong"), CASES)
def test_a_pass_refuses_what_it_would_read_or_write_wrongly(name, argument, wrong):
    arguments = calls()[name]
    arguments[argument] = WRONG[wrong](arguments[argument])
    with pytest.raises((TypeError, ValueError)):
        getattr(passes, name)(**arguments)


def test_buffers_have_their_dtype_and_device_by_name():
    with torch.device("meta"):
        buffer = cpu.empty((2, 3), torch.float32)
    assert buffer.device.type == "cpu"
    assert buffer.dtype == torch.float32


def test_both_implementations_have_the_same_passes():
    assert all(hasattr(passes_numba, name) for name in calls())
