"""Compiled code over the shapes of the tests, with every access checked: `make sanitize`.

The C++ passes, for each level that this processor runs, under AddressSanitizer and
UndefinedBehaviorSanitizer (g++ has both); numba's kernels with their bounds checked. As a pytest
plugin (`-p sanitize`) this file gives the fused path the library that SANITIZED names.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from lrqmm.fused.native import levels

ROOT = Path(__file__).parent.parent
MARCH = {
    "base": [],
    "v3": ["-march=x86-64-v3"],
    "v3vnni": ["-march=x86-64-v3", "-mavxvnni"],
    "v4": ["-march=x86-64-v4"],
    "v4vnni": ["-march=x86-64-v4", "-mavx512vnni"],
}
FLAGS = [
    "-O1", "-g", "-std=c++17", "-fopenmp", "-shared", "-fPIC", "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all",
]  # fmt: skip
SOURCES = ("passes.cpp", "gemm.cpp", "groups.cpp", "algorithm.cpp")
SHAPES = (
    "tests/test_fused.py",
    "tests/test_passes.py",
    "tests/test_gemm.py",
    "tests/test_whole.py",
)
STRIDES = "tests/test_arrays.py"
PACKING = "tests/test_packing.py"


def pytest_configure() -> None:
    from lrqmm.fused import gemm, groups, native, passes, quick, whole

    path = os.environ["SANITIZED"]
    library = ctypes.CDLL(path) if path else None
    if library is not None:
        native.declare(library)
    for module in (gemm, groups, passes, quick, whole):
        module._library = lambda: library


def run(title: str, tests: tuple[str, ...], **changes: str) -> None:
    paths = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    usual = {"PYTHONPATH": paths, "PYTHONMALLOC": "malloc", "OMP_WAIT_POLICY": "passive"}
    environment = {**os.environ, **usual, **changes}
    print(f"== {title}", flush=True)
    quick = ["-k", "not bandwidth"]  # which checked code does not have
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "sanitize", *quick]
    subprocess.run([*command, *tests], cwd=ROOT, env=environment, check=True)


def main() -> None:
    preload = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with TemporaryDirectory() as folder:
        for number, level in enumerate(levels()):
            library = f"{folder}/native_{level}.so"
            sources = [str(ROOT / "src/lrqmm/fused" / source) for source in SOURCES]
            subprocess.run(["g++", *FLAGS, *MARCH[level], *sources, "-o", library], check=True)
            options = "detect_leaks=0:abort_on_error=1"  # Python's own are no leaks
            tests = SHAPES if number else (*SHAPES, STRIDES)  # these once, at the best level
            run(f"C++, {level}", tests, SANITIZED=library, LD_PRELOAD=preload,
                ASAN_OPTIONS=options, UBSAN_OPTIONS="print_stacktrace=1")  # fmt: skip
        run(
            "numba",
            (*SHAPES, PACKING),
            SANITIZED="",
            NUMBA_BOUNDSCHECK="1",
            NUMBA_CACHE_DIR=folder,
        )


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {' '.join(map(str, error.cmd))}")
    print("clean")
