"""The compiled passes of `lrqmm.fused`, once for each level of the processor; all may fail.

Where none can be built (no compiler, no OpenMP) numba runs the same passes.
"""

import platform

from setuptools import Extension, setup

FLAGS = ["-O3", "-std=c++17", "-fopenmp", "-ffp-contract=fast"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math"]
LEVELS = {"base": []}
if platform.machine() in ("x86_64", "AMD64"):
    LEVELS["v3"] = ["-march=x86-64-v3"]
    LEVELS["v4"] = ["-march=x86-64-v4", "-mprefer-vector-width=512"]

setup(
    ext_modules=[
        Extension(
            f"lrqmm.fused._passes_{level}",
            ["src/lrqmm/fused/passes.cpp"],
            extra_compile_args=[*FLAGS, *march],
            extra_link_args=["-fopenmp"],
            optional=True,
        )
        for level, march in LEVELS.items()
    ]
)
