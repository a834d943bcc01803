"""Singular values of matrices and of what quantisation leaves of them: figure 1."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrqmm.bench.measures._arrays import Float32, OfQuantizer
from lrqmm.products.quantize import Uniform


class Spectrum(OfQuantizer):
    """Singular values of A and of its quantisation residual, as columns (figure 1)."""

    name = "spectrum"

    def arrays(self, A: Float32, B: Float32, setting: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        residual = A - Uniform(**setting).quantize(A).dequantize()
        return {
            "matrix": np.linalg.svd(A, compute_uv=False)[:, None],
            "residual": np.linalg.svd(residual, compute_uv=False)[:, None],
        }


MEASURE = Spectrum
