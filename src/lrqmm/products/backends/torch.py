"""torch on CPU and CUDA: `torch._int_mm`, and float products in float32, TF32 and bfloat16."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from itertools import product

import torch

from lrqmm._checks import Array, Unsupported
from lrqmm.products.backends import generic
from lrqmm.products.backends._processor import processor_name


def plain(name: str, x: Array) -> Array:
    """A `torch.Tensor` without gradient whose memory holds its elements; copied only where the
    memory of `x` does not.

    Raises TypeError, which speaks of `name`, for tensors without such memory: sparse, nested,
    quantised or on the meta device, inside `torch.func` transforms, of classes that compute by
    themselves.
    """
    kind = type(x)
    if kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        raise TypeError(f"{name} is a {kind.__module__}.{kind.__name__}; allowed: a plain tensor")
    if x.layout != torch.strided or x.is_nested or x.is_quantized:
        described = "nested" if x.is_nested else "quantized" if x.is_quantized else x.layout
        raise TypeError(f"{name} is a {described} tensor; allowed: a dense one")
    if x.is_meta:
        raise TypeError(f"{name} is on the meta device and holds no numbers; allowed: a device")
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        raise TypeError(f"{name} is inside a torch.func transform; allowed: outside of it")
    x = x.detach()
    if kind is not torch.Tensor and type(x) is not torch.Tensor:
        x = x.as_subclass(torch.Tensor)
    if x._is_zerotensor():
        x = x.clone()
    return x.resolve_neg()


TRIED = ((1, 2, 1), (3, 5, 7), (64, 256, 64))
"""Shapes (m, k, n) on which the CPU's integer product is tried; oneDNN has kernels by shape."""


@cache
def cpu_int_mm_refused() -> str:
    """Why `torch._int_mm` is not used on this CPU; '' where it is.

    Without an int8 dot product (VNNI) the CPU's kernels go through saturating 16-bit sums: slow or
    wrong. What the processor has is not what oneDNN may use (`ONEDNN_MAX_CPU_ISA`), so products
    that would saturate are tried, once per process.
    """
    probe = getattr(torch.cpu, "_is_vnni_supported", None)
    if not (probe and probe()):
        return "no int8 dot product"
    for (m, k, n), x, y in product(TRIED, (127, -128), (127, -128)):
        a = torch.full((m, k), x, dtype=torch.int8, device="cpu")
        b = torch.full((k, n), y, dtype=torch.int8, device="cpu")
        if not bool((torch._int_mm(a, b) == k * x * y).all()):
            return "torch._int_mm saturates here; is ONEDNN_MAX_CPU_ISA set?"
    return ""


def overlap(x: Array, y: Array) -> bool:
    mine, other = x.untyped_storage().data_ptr(), y.untyped_storage().data_ptr()
    return bool(mine == other != 0)


def written(x: Array) -> None:
    """Tell autograd that compiled code has changed a tensor in place."""
    if not x.is_inference():
        torch.autograd.graph.increment_version(x)


def integer_route(x: Array) -> str:
    if x.device.type == "cuda" or (x.device.type == "cpu" and not cpu_int_mm_refused()):
        return f"torch._int_mm ({x.device.type})"
    reason = cpu_int_mm_refused() if x.device.type == "cpu" else "no int8 dot product"
    return f"exact float32 pieces ({x.device.type}, {reason})"


def integer_matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """(m, k) int8 by (k, n) int8 -> (m, n) int32, exact; into `out` where that is given."""
    if a.device.type == "cpu" and not cpu_int_mm_refused():
        column_major = b.stride() == (1, b.shape[0]) and 1 not in b.shape
        if not column_major and b.stride()[0] == 1 and 1 not in b.shape:
            b, column_major = _plain(b.T).T, True  # a slice of Bᵀ: quicker than turning it over
        a, b = _plain(a), b if column_major else _plain(b)
        if out is not None and 1 not in out.shape:
            return torch._int_mm(a, b, out=out)
        product = torch._int_mm(a, b)
    elif a.device.type == "cuda":
        product = _cuda_int_mm(a, b)
    else:
        with usual_state(a, "ieee"):
            product = generic.integer_matmul(a, b)
    return product if out is None else out.copy_(product)


def _plain(x: torch.Tensor) -> torch.Tensor:
    """Row-major with the strides to show for it.

    `contiguous()` leaves the stride of a dimension of size 1 as it is, and `_int_mm` on CPU then
    reads the wrong elements without a word.
    """
    if x.stride() == (x.shape[1], 1):
        return x
    return x.clone(memory_format=torch.contiguous_format)


def _cuda_int_mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`torch._int_mm` on CUDA wants m > 16, k and n multiples of 8, and is fast for K-major b."""
    (m, k), n = a.shape, b.shape[1]
    pad_m, pad_k, pad_n = max(32 - m, -m % 8), -k % 8, -n % 8
    a = _plain(torch.nn.functional.pad(a, (0, pad_k, 0, pad_m)))
    bt = _plain(torch.nn.functional.pad(b.mT, (0, pad_k, 0, pad_n)))
    return torch._int_mm(a, bt.mT)[:m, :n]


PRECISIONS = {"ieee": ("ieee", "ieee"), "tf32": ("tf32", "ieee"), "bf16": ("ieee", "bf16")}
"""Of float32 products: torch's settings on a GPU and on a CPU."""


class _Float32Precision:
    """Float32 products in 'ieee', 'tf32' (on a GPU) or 'bf16' (on a CPU, where it has it) inside
    the block, whatever the user's setting, which is one of the process, shared by its threads.

    The first block to enter sets it, the last one to leave restores what it found. Blocks of the
    same precision run side by side; one of another precision waits for them, and inside one of
    them it is a RuntimeError.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = threading.local()
        self._blocks = 0
        self._precision = ""
        self._before: list[str] = []

    @contextmanager
    def __call__(self, precision: str = "ieee") -> Iterator[None]:
        settings = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
        outer = getattr(self._inside, "precision", None)
        if outer not in (None, precision):
            raise RuntimeError(f"a {precision} block is inside one of {outer}; allowed: the same")
        with self._changed:
            self._changed.wait_for(lambda: not self._blocks or self._precision == precision)
            if not self._blocks:
                self._before = [setting.fp32_precision for setting in settings]
                on_gpu, on_cpu = PRECISIONS[precision]
                settings[0].fp32_precision, settings[1].fp32_precision = on_gpu, on_cpu
                self._precision = precision
            self._blocks += 1
        self._inside.precision = precision
        try:
            yield
        finally:
            self._inside.precision = outer
            with self._changed:
                self._blocks -= 1
                if not self._blocks:
                    for setting, old in zip(settings, self._before, strict=True):
                        setting.fp32_precision = old
                    self._changed.notify_all()


exact_float32 = _Float32Precision()


def usual_state(x: Array, precision: str) -> AbstractContextManager[None]:
    """Torch as it is when nobody has changed it, for products of tensors like `x`.

    No autocast; no inference mode, whose tensors cannot be written to outside of it; float32
    products in `precision`, of `PRECISIONS`. The default dtype and device stay the user's: code
    in such a block names both.
    """
    return usual_state_on(x.device.type, precision)


@contextmanager
def usual_state_on(kind: str, precision: str) -> Iterator[None]:
    """The same by the kind of device."""
    with ExitStack() as stack:
        for each in {"cpu", kind}:
            if torch.is_autocast_enabled(each):
                stack.enter_context(torch.autocast(each, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(exact_float32(precision))
        yield


def float_matmul(A: Array, B: Array, precision: str, out: Array | None = None) -> Array:
    if precision == "tf32" and (
        A.device.type != "cuda" or torch.cuda.get_device_capability(A.device) < (8, 0)
    ):
        raise Unsupported("TF32 needs a CUDA device of compute capability 8.0 or higher")
    with usual_state(A, "tf32" if precision == "tf32" else "ieee"):
        if precision != "bfloat16":
            return torch.matmul(A, B, out=out)
        C = A.bfloat16() @ B.bfloat16()
        return C.float() if out is None else out.copy_(C)


def synchronize(x: Array) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)


def flush_cache(x: Array) -> None:
    if x.device.type == "cuda":
        size = torch.cuda.get_device_properties(x.device).L2_cache_size
        torch.empty(2 * size, dtype=torch.int8, device=x.device).zero_()


def device_name(x: Array) -> str:
    if x.device.type == "cuda":
        return str(torch.cuda.get_device_name(x.device))
    return processor_name()
