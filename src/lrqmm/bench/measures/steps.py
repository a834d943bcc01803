"""LRQMM step by step on a small piece of a product: figure 2."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrqmm import _checks
from lrqmm.bench.measures._arrays import Float32, OfQuantizer
from lrqmm.products.quantize import Uniform
from lrqmm.products.rsvd import rsvd

SIZE = 32


class Steps(OfQuantizer):
    """LRQMM step by step on a 32 x 32 piece, from the middle rows, of a product (figure 2);
    `settings` has a `rank`.
    """

    name = "steps"

    def check_setting(self, setting: Mapping[str, Any]) -> None:
        _checks.integer("rank", setting.get("rank"), 1, SIZE)
        super().check_setting({key: setting[key] for key in setting if key != "rank"})

    def arrays(self, A: Float32, B: Float32, setting: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        setting = dict(setting)
        rank = setting.pop("rank")
        first = max(0, len(A) // 2 - SIZE // 2)
        X = (A[first : first + SIZE] @ B[:, :SIZE]).astype(np.float32)
        quantized = Uniform(**setting).quantize(X)
        approx = quantized.dequantize()
        residual = X - approx
        U, s, Vt = rsvd(residual, rank)
        low_rank = (U * s) @ Vt
        return {
            "matrix": X,
            "codes": quantized.codes,
            "dequantized": approx,
            "residual": residual,
            "low-rank part": low_rank,
            "what is left": residual - low_rank,
        }


MEASURE = Steps
