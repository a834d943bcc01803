"""The compiled library of `lrqmm.fused`, once for each level of the processor; all may fail.

Where none can be built (no compiler, no OpenMP) numba runs its passes, and torch its products.
"""

import platform

from setuptools import Extension, setup

FLAGS = ["-O3", "-std=c++17", "-fopenmp", "-ffp-contract=fast"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-fno-tree-pre"]  # see gemm.cpp
LEVELS = {"base": []}
if platform.machine() in ("x86_64", "AMD64"):
    LEVELS["v3"] = ["-march=x86-64-v3"]
    LEVELS["v3vnni"] = [*LEVELS["v3"], "-mavxvnni"]
    LEVELS["v4"] = ["-march=x86-64-v4", "-mprefer-vector-width=512"]
    LEVELS["v4vnni"] = [*LEVELS["v4"], "-mavx512vnni"]

setup(  # one after another: the levels' object files have the same names
    ext_modules=[
        Extension(
            f"lrqmm.fused._native_{level}",
            [f"src/lrqmm/fused/{name}.cpp" for name in ("passes", "gemm", "groups", "algorithm")],
            depends=["src/lrqmm/fused/native.h", "src/lrqmm/fused/blocks.h"],
            extra_compile_args=[*FLAGS, *march],
            extra_link_args=["-fopenmp"],
            optional=True,
        )
        for level, march in LEVELS.items()
    ],
)
