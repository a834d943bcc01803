"""The passes over memory of the fused CPU path: compiled, or numba where nothing was built.

Every function takes CPU tensors whose rows are contiguous and writes into those given to it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch

BUILDS = {"AVX512": ("v4", "v3", "base"), "AVX2": ("v3", "base")}
"""Compiled variants that a processor can run, best first."""


@cache
def _library() -> ctypes.CDLL | None:
    for build in BUILDS.get(torch.backends.cpu.get_cpu_capability(), ("base",)):
        for path in Path(__file__).parent.glob(f"_passes_{build}.*"):
            try:
                return ctypes.CDLL(str(path))
            except OSError:  # built for another system
                continue
    return None


def implementation() -> str:
    """'C++' or 'numba'."""
    return "numba" if _library() is None else "C++"


def quantize_rows(
    x: torch.Tensor,
    top: int,
    truncate: bool,
    codes: torch.Tensor,
    digits: torch.Tensor | None,
    scale: torch.Tensor,
) -> None:
    """Codes, residual digits and a scale a row of x (rows, columns); see `cpu.quantize`."""
    _quantize("quantize_rows", x, top, truncate, codes, digits, scale)


def quantize_rows_affine(
    x: torch.Tensor,
    top: int,
    codes: torch.Tensor,
    digits: torch.Tensor | None,
    scale: torch.Tensor,
    zero: torch.Tensor,
) -> None:
    """Codes, residual digits, a scale and a zero point a row of x, to nearest."""
    library = _library()
    if library is None:
        from lrqmm.fused import passes_numba

        none = codes[:0].numpy()
        passes_numba.quantize_rows_affine(
            x.numpy(), top, codes.numpy(), none if digits is None else digits.numpy(),
            scale.numpy(), zero.numpy(),
        )  # fmt: skip
        return
    _call(
        library.quantize_rows_affine,
        x, *x.shape, x.stride(0), float(top), codes, codes.stride(0), digits,
        _stride(digits), scale, zero,
    )  # fmt: skip


def quantize_columns(
    x: torch.Tensor,
    top: int,
    truncate: bool,
    codes: torch.Tensor,
    digits: torch.Tensor | None,
    scale: torch.Tensor,
) -> None:
    """The same with a scale a column."""
    _quantize("quantize_columns", x, top, truncate, codes, digits, scale)


def _quantize(
    name: str,
    x: torch.Tensor,
    top: int,
    truncate: bool,
    codes: torch.Tensor,
    digits: torch.Tensor | None,
    scale: torch.Tensor,
) -> None:
    library = _library()
    if library is None:
        from lrqmm.fused import passes_numba

        arrays = (x.numpy(), top, truncate, codes.numpy())
        none = codes[:0].numpy()
        getattr(passes_numba, name)(
            *arrays, none if digits is None else digits.numpy(), scale.numpy()
        )
        return
    _call(
        getattr(library, name),
        x, *x.shape, x.stride(0), float(top), truncate, codes, codes.stride(0), digits,
        _stride(digits), scale,
    )  # fmt: skip


def scale_update(
    sums: torch.Tensor,
    s: torch.Tensor,
    t: torch.Tensor,
    X: torch.Tensor,
    Y: torch.Tensor,
    C: torch.Tensor,
) -> None:
    """C = s_i t_j sums_ij + (X Yᵀ)_ij with X (m, q), Y (n, q) contiguous; q = 0 for no update."""
    library = _library()
    if library is None:
        from lrqmm.fused import passes_numba

        passes_numba.scale_update(*(tensor.numpy() for tensor in (sums, s, t, X, Y, C)))
        return
    _call(
        library.scale_update,
        sums, sums.stride(0), *C.shape, s, t, X, Y, X.shape[1], C, C.stride(0),
    )  # fmt: skip


def thin_codes(
    X: torch.Tensor,
    weight: torch.Tensor | None,
    first: torch.Tensor,
    second: torch.Tensor | None,
    scale: torch.Tensor,
) -> None:
    """weight_i X_il = scale_l (first_li + second_li / 254); X (n, w), first and second (w, n)."""
    library = _library()
    if library is None:
        from lrqmm.fused import passes_numba

        weights = scale[:0].numpy() if weight is None else weight.numpy()
        seconds = first[:0].numpy() if second is None else second.numpy()
        passes_numba.thin_codes(X.numpy(), weights, first.numpy(), seconds, scale.numpy())
        return
    _call(
        library.thin_codes, X, *X.shape, weight, first, *first.stride(), second, scale,
    )  # fmt: skip


def merge(sums: torch.Tensor, f: torch.Tensor | None, g: torch.Tensor, out: torch.Tensor) -> None:
    """out_il = f_i g_l (sums_il + sums_i(l+w) / 254), sums (n, 2w), out (n, w)."""
    library = _library()
    if library is None:
        from lrqmm.fused import passes_numba

        rows = g[:0] if f is None else f
        passes_numba.merge(*(tensor.numpy() for tensor in (sums, rows, g, out)))
        return
    _call(
        library.merge, sums, *sums.stride(), *out.shape, f, g, out,
    )  # fmt: skip


def _call(function: Any, *arguments: torch.Tensor | float | None) -> None:
    """Call a compiled pass: tensors as pointers, None as a null one, and the threads at the end."""
    given: list[Any] = [_argument(argument) for argument in arguments]
    function(*given, ctypes.c_int(torch.get_num_threads()))


def _argument(value: torch.Tensor | float | None) -> Any:
    if value is None or isinstance(value, torch.Tensor):
        return ctypes.c_void_p(None if value is None else value.data_ptr())
    if isinstance(value, bool):
        return ctypes.c_int(value)
    return ctypes.c_int64(value) if isinstance(value, int) else ctypes.c_float(value)


def _stride(x: torch.Tensor | None) -> int:
    return 0 if x is None else x.stride(0)
