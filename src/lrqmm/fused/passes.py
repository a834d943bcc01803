"""The passes over memory of the fused CPU path: compiled, or numba where nothing was built.

Every function takes CPU tensors whose rows are contiguous and writes into those given to it. What
compiled code is given is checked here: device, dtype, shape and strides, each time.
"""

from functools import partial

import torch

from lrqmm.fused.native import library as _library

MODES = ("nearest", "truncate", "signed")
"""How codes are rounded, by their numbers in compiled code; 'signed' is to nearest."""

INT8, INT32, FLOAT32 = torch.int8, torch.int32, torch.float32


def implementation() -> str:
    """'C++' or 'numba'."""
    return "numba" if _library() is None else "C++"


def _quantize(
    name: str,
    x: torch.Tensor,
    top: int,
    mode: str,
    codes: torch.Tensor,
    digits: torch.Tensor | None,
    scale: torch.Tensor,
) -> None:
    by_rows = name == "quantize_rows"
    number = MODES.index(mode)
    _check_quantized(x, codes, digits, by_rows)
    check_vector("scale", scale, x.shape[0 if by_rows else 1])
    _run(
        name,
        (x, top, number, codes, _or_none(digits, codes), scale),
        (x, *x.shape, x.stride(0), top, number, codes, codes.stride(0), digits,
         _stride(digits), scale),
    )  # fmt: skip


quantize_rows = partial(_quantize, "quantize_rows")
"""Codes, residual digits and one scale per row of x (rows, columns); see `cpu.quantize`."""
quantize_columns = partial(_quantize, "quantize_columns")
"""The same with one scale per column."""


def quantize_rows_affine(
    x: torch.Tensor,
    top: int,
    codes: torch.Tensor,
    digits: torch.Tensor | None,
    scale: torch.Tensor,
    zero: torch.Tensor,
) -> None:
    """Codes, residual digits, one scale and one zero point per row of x, to nearest."""
    _check_quantized(x, codes, digits, by_rows=True)
    check_vector("scale", scale, x.shape[0])
    check_vector("zero", zero, x.shape[0])
    _run(
        "quantize_rows_affine",
        (x, top, codes, _or_none(digits, codes), scale, zero),
        (x, *x.shape, x.stride(0), top, codes, codes.stride(0), digits, _stride(digits),
         scale, zero),
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
    m, n = C.shape
    check("C", C, FLOAT32, (m, n))
    check("sums", sums, INT32, (m, n), at_least=True)
    check_vector("s", s, m)
    check_vector("t", t, n)
    check("X", X, FLOAT32, (m, X.shape[1]), contiguous=True)
    check("Y", Y, FLOAT32, (n, X.shape[1]), contiguous=True)
    _run(
        "scale_update",
        (sums, s, t, X, Y, C),
        (sums, sums.stride(0), m, n, s, t, X, Y, X.shape[1], C, C.stride(0)),
    )


def thin_codes(
    X: torch.Tensor,
    weight: torch.Tensor | None,
    first: torch.Tensor,
    second: torch.Tensor | None,
    scale: torch.Tensor,
) -> None:
    """weight_i X_il = scale_l (first_li + second_li / 254); X (n, w), first and second (w, n)."""
    n, w = X.shape
    check("X", X, FLOAT32, (n, w), contiguous=True)
    check("first", first, INT8, (w, n), any_strides=True)
    if weight is not None:
        check_vector("weight", weight, n)
    if second is not None:
        check("second", second, INT8, (w, n), contiguous=True)
    check_vector("scale", scale, w)
    _run(
        "thin_codes",
        (X, _or_none(weight, scale), first, _or_none(second, first), scale),
        (X, n, w, weight, first, *first.stride(), second, scale),
    )


def merge(sums: torch.Tensor, f: torch.Tensor | None, g: torch.Tensor, out: torch.Tensor) -> None:
    """out_il = f_i g_l (sums_il + sums_i(l+w) / 254), sums (n, 2w), out (n, w)."""
    n, w = out.shape
    check("out", out, FLOAT32, (n, w), contiguous=True)
    check("sums", sums, INT32, (n, 2 * w), any_strides=True)
    if f is not None:
        check_vector("f", f, n)
    check_vector("g", g, w)
    _run(
        "merge",
        (sums, _or_none(f, g), g, out),
        (sums, *sums.stride(), n, w, f, g, out),
    )


def _check_quantized(
    x: torch.Tensor, codes: torch.Tensor, digits: torch.Tensor | None, by_rows: bool
) -> None:
    """x, and the memory of its codes, which has room for more vectors; they lie as x does."""
    rows, columns = x.shape
    check("x", x, FLOAT32, (rows, columns))
    check("codes", codes, INT8, (rows, columns), at_least=True)
    if digits is not None:
        check("digits", digits, INT8, (rows, columns))
    if codes.shape[1 if by_rows else 0] != (columns if by_rows else rows):
        raise ValueError(f"codes has shape {tuple(codes.shape)} for x of {tuple(x.shape)}")


def check_vector(name: str, x: torch.Tensor, length: int) -> None:
    check(name, x, FLOAT32, (length,), contiguous=True)


def check(
    name: str,
    x: torch.Tensor,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    *,
    at_least: bool = False,
    contiguous: bool = False,
    any_strides: bool = False,
) -> None:
    """Raise unless compiled code may walk over x: a CPU tensor of this dtype and shape (or larger),
    contiguous, or with elements of a row side by side and rows that do not overlap."""
    if x.dtype != dtype or not x.is_cpu or x.layout != torch.strided:
        raise TypeError(f"{name} is {x.dtype} on {x.device}; allowed: {dtype} on cpu")
    if x.shape != shape and not (
        at_least
        and len(x.shape) == len(shape)
        and all(size >= least for size, least in zip(x.shape, shape, strict=True))
    ):
        allowed = f"{'at least ' if at_least else ''}{shape}"
        raise ValueError(f"{name} has shape {tuple(x.shape)}; allowed: {allowed}")
    if any_strides or x.is_contiguous() or 0 in shape:
        return
    if contiguous or (x.shape[1] > 1 and x.stride(1) != 1):
        raise ValueError(f"{name} has strides {x.stride()}; allowed: rows of memory")


Argument = torch.Tensor | float | None


def _run(name: str, arrays: tuple[Argument, ...], arguments: tuple[Argument, ...]) -> None:
    """Run a pass: compiled, with tensors as pointers, None as a null one, and the threads at the
    end; or in numba, on the arrays."""
    library = _library()
    if library is None:
        from lrqmm.fused import passes_numba

        values = (x.numpy() if isinstance(x, torch.Tensor) else x for x in arrays)
        getattr(passes_numba, name)(*values)
    else:
        passed = (x.data_ptr() if isinstance(x, torch.Tensor) else x for x in arguments)
        getattr(library, name)(*passed, torch.get_num_threads())


def _or_none(x: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """Numba's word for no array: an empty one."""
    return like[:0] if x is None else x


def _stride(x: torch.Tensor | None) -> int:
    return 0 if x is None else x.stride(0)
