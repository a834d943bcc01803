"""The passes over memory of the fused CPU path: compiled, or numba where nothing was built.

Every function takes CPU tensors whose rows are contiguous and writes into those given to it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

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
    library.quantize_rows_affine(
        _pointer(x),
        _long(x.shape[0]),
        _long(x.shape[1]),
        _long(x.stride(0)),
        ctypes.c_float(top),
        _pointer(codes),
        _long(codes.stride(0)),
        _pointer(digits),
        _long(0 if digits is None else digits.stride(0)),
        _pointer(scale),
        _pointer(zero),
        ctypes.c_int(torch.get_num_threads()),
    )


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
    getattr(library, name)(
        _pointer(x),
        _long(x.shape[0]),
        _long(x.shape[1]),
        _long(x.stride(0)),
        ctypes.c_float(top),
        ctypes.c_int(truncate),
        _pointer(codes),
        _long(codes.stride(0)),
        _pointer(digits),
        _long(0 if digits is None else digits.stride(0)),
        _pointer(scale),
        ctypes.c_int(torch.get_num_threads()),
    )


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
    library.scale_update(
        _pointer(sums),
        _long(sums.stride(0)),
        _long(C.shape[0]),
        _long(C.shape[1]),
        _pointer(s),
        _pointer(t),
        _pointer(X),
        _pointer(Y),
        _long(X.shape[1]),
        _pointer(C),
        _long(C.stride(0)),
        ctypes.c_int(torch.get_num_threads()),
    )


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
    library.thin_codes(
        _pointer(X),
        _long(X.shape[0]),
        _long(X.shape[1]),
        _pointer(weight),
        _pointer(first),
        _long(first.stride(0)),
        _long(first.stride(1)),
        _pointer(second),
        _pointer(scale),
        ctypes.c_int(torch.get_num_threads()),
    )


def merge(sums: torch.Tensor, f: torch.Tensor | None, g: torch.Tensor, out: torch.Tensor) -> None:
    """out_il = f_i g_l (sums_il + sums_i(l+w) / 254), sums (n, 2w), out (n, w)."""
    library = _library()
    if library is None:
        from lrqmm.fused import passes_numba

        rows = g[:0] if f is None else f
        passes_numba.merge(*(tensor.numpy() for tensor in (sums, rows, g, out)))
        return
    library.merge(
        _pointer(sums),
        _long(sums.stride(0)),
        _long(sums.stride(1)),
        _long(out.shape[0]),
        _long(out.shape[1]),
        _pointer(f),
        _pointer(g),
        _pointer(out),
        ctypes.c_int(torch.get_num_threads()),
    )


def _pointer(x: torch.Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


_long = ctypes.c_int64
