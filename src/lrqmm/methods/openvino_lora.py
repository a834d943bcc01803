"""OpenVINO's 4-bit weights with NNCF's low-rank correction of their error.

    C ≈ A B̃ + (A L) R,    L R ≈ B - B̃

`nncf.compress_weights(lora_correction=True)`: factors of rank r, 8 bits each, by an SVD that is
weighted with the sample's magnitudes and refined on it by least squares. It is the low-rank error
compensation that a library ships.
Source: NNCF, quantization/algorithms/weight_compression/lora_correction.py.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm.methods.openvino import compiled, model, nncf_quietly
from lrqmm.products.backends import to_numpy
from lrqmm.products.lowrank import DEFAULT_RANK
from lrqmm.products.peer import Peer
from lrqmm.products.phases import phase


@dataclass(frozen=True)
class OpenVinoLora(Peer):
    """OpenVINO's product with a corrected weight.

    Parameters
    ----------
    rank : of the correction, 1 to min(k, n); None is min(16, that limit)
    group : rows of B that share a scale; k is filled up with zeros to whole groups
    """

    packages: ClassVar[tuple[str, ...]] = ("openvino", "nncf")
    modules: ClassVar[tuple[str, ...]] = ("openvino", "nncf")
    speaks: ClassVar[str] = "numpy"
    route: ClassVar[str] = "OpenVINO (cpu)"
    range: ClassVar[tuple[float, float]] = (2.0**-4, 2.0**10)
    calibrated: ClassVar[bool] = True

    rank: int | None = None
    group: int = 64

    def __post_init__(self) -> None:
        if self.rank is not None:
            _checks.integer("rank", self.rank, 1)
        _checks.choice("group", self.group, (32, 64, 128))

    def check_shape(self, m: int, k: int, n: int) -> None:
        if self.rank is not None and self.rank > min(k, n):
            raise ValueError(f"rank is {self.rank}; allowed: 1 to min(k, n) = {min(k, n)}")

    def rank_of(self, k: int, n: int) -> int:
        """The rank at which a weight (k x n) is corrected."""
        return min(DEFAULT_RANK if self.rank is None else self.rank, k, n)

    def _prepare(self, B: Array, calibration: Array | None, *, scratch: bool) -> Any:
        self._check_installed()
        given, power = self._in_range(self._given(B))
        sample, _ = self._in_range(to_numpy(calibration))
        with phase("quantize"):
            return self.fitted(given, sample), power

    def fitted(self, B: Any, sample: Any) -> Any:
        """B (k x n) as OpenVINO keeps it, corrected for left operands like the sample (s x k)."""
        pad = -len(B) % self.group
        made = model(np.pad(B, ((0, pad), (0, 0))))
        with nncf_quietly() as nncf:
            data = nncf.Dataset([np.ascontiguousarray(np.pad(sample, ((0, 0), (0, pad))))])
            factors = nncf.AdvancedLoraCorrectionParameters(adapter_rank=self.rank_of(*B.shape))
            made = nncf.compress_weights(
                made,
                mode=nncf.CompressWeightsMode.INT4_SYM,
                group_size=self.group,
                all_layers=True,
                lora_correction=bool(B.any() and sample.any()),  # NNCF divides by their norms
                dataset=data,
                advanced_parameters=nncf.AdvancedCompressionParameters(
                    lora_correction_params=factors
                ),
            )
        return compiled(made)

    def pack(self, B: Any) -> Any:
        raise NotImplementedError("it is fitted to a sample: `_prepare` calls `fitted`")

    def multiply(self, A: Any, packed: Any) -> Any:
        run, k = packed
        return np.array(run(np.pad(A, ((0, 0), (0, k - A.shape[1]))))[0], copy=True)

    def operand_bits(self, m: int, k: int, n: int) -> tuple[int, int]:
        rank = self.rank_of(k, n)
        factors = 8 * rank * (k + n) + 16 * (rank + n)
        left = 8 * m * k + 32 * -(-k // 32) * m
        return left, 4 * k * n + 16 * -(-k // self.group) * n + factors


METHOD = OpenVinoLora("openvino_lora", title="OpenVINO, NNCF's correction", cites=("openvino",))
