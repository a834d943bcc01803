"""The compiled library of the fused CPU path: `passes.cpp` and `gemm.cpp`, once for each level of
processor; the best that this one runs is loaded."""

import ctypes
from functools import cache
from pathlib import Path

import torch

from lrqmm.products.backends._processor import instruction_sets

LEVELS = {
    "v4vnni": ("AVX512", "AVX512-VNNI"),
    "v4": ("AVX512", ""),
    "v3vnni": ("AVX2", "AVX-VNNI"),
    "v3": ("AVX2", ""),
    "base": ("", ""),
}
"""Levels, best first: what each needs of torch's capability, and of the instruction sets."""

POINTER, SIZE, INT, FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
SIGNATURES = {
    "quantize_rows": [POINTER, *[SIZE] * 3, FLOAT, INT, *[POINTER, SIZE] * 2, POINTER],
    "quantize_columns": [POINTER, *[SIZE] * 3, FLOAT, INT, *[POINTER, SIZE] * 2, POINTER],
    "quantize_rows_affine": [POINTER, *[SIZE] * 3, FLOAT, *[POINTER, SIZE] * 2, POINTER, POINTER],
    "thin_codes": [POINTER, SIZE, SIZE, POINTER, POINTER, SIZE, SIZE, POINTER, POINTER],
    "merge": [POINTER, *[SIZE] * 4, *[POINTER] * 3],
    "scale_update": [POINTER, *[SIZE] * 3, *[POINTER] * 4, SIZE, POINTER, SIZE],
    "pack_groups": [POINTER, SIZE, POINTER, *[SIZE] * 3, INT, POINTER, POINTER],
    "multiply_groups": [POINTER, *[SIZE] * 4, FLOAT, INT, SIZE, INT, *[POINTER] * 5, SIZE, POINTER,
                        SIZE],
    "pack": [POINTER, *[SIZE] * 4, POINTER],
    "multiply": [POINTER, SIZE, POINTER, *[SIZE] * 3, POINTER, POINTER, SIZE, *[POINTER] * 4, SIZE],
    "multiply_thin": [POINTER, SIZE, POINTER, *[SIZE] * 5, POINTER],
}  # fmt: skip
"""Arguments of each function but for the last, its threads."""


def load(level: str) -> ctypes.CDLL | None:
    """The library at one level; None where it was not built, or for another system."""
    for path in Path(__file__).parent.glob(f"_native_{level}.*"):
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        declare(library)
        return library
    return None


def declare(library: ctypes.CDLL) -> None:
    """Say what its functions take and return."""
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [*arguments, INT], None
    library.packs_halves.argtypes, library.packs_halves.restype = [], SIZE
    library.packed_groups_size.argtypes = [SIZE, SIZE, SIZE, INT]
    library.packed_groups_size.restype = SIZE
    library.packed_left_size.argtypes, library.packed_left_size.restype = [SIZE, SIZE], SIZE
    library.packed_right_size.argtypes, library.packed_right_size.restype = [SIZE, SIZE], SIZE
    library.pack_factors.argtypes = [POINTER, POINTER, *[SIZE] * 3, POINTER, POINTER]
    library.pack_factors.restype = None
    library.largest.argtypes, library.largest.restype = [POINTER, *[SIZE] * 3, INT], FLOAT
    library.whole_product.argtypes, library.whole_product.restype = [POINTER, POINTER], INT
    library.residual_part.argtypes, library.residual_part.restype = [POINTER, POINTER], INT
    library.packed_size.argtypes, library.packed_size.restype = [SIZE, SIZE], SIZE


def levels() -> list[str]:
    """The levels that this processor runs, best first."""
    capability = torch.backends.cpu.get_cpu_capability()
    has = {"", capability, *instruction_sets()}
    if capability == "AVX512":
        has.add("AVX2")
    return [level for level, needs in LEVELS.items() if has.issuperset(needs)]


@cache
def level() -> str:
    """The best level that was built, '' where none was."""
    return next((name for name in levels() if load(name)), "")


@cache
def library() -> ctypes.CDLL | None:
    """The library at that level; None where nothing was built."""
    return load(level()) if level() else None
