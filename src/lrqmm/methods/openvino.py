"""OpenVINO's product: weights by NNCF's formats, activations as the CPU plugin rounds them.

`nncf.compress_weights` quantises the weight of a model of one MatMul. Without anything said, the
plugin runs in bfloat16 where the processor has it, and rounds A to 8 bits in groups of 32 beside
integer weights. It has as many threads as torch; NNCF's telemetry is off. NNCF keeps
scales in float16, so that large and small operands are multiplied by a power of two first.
Source: OpenVINO, "LLM weight compression"; NNCF, `nncf.compress_weights`.
"""

import contextlib
import io
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from lrqmm import _checks
from lrqmm.products.peer import Peer

WEIGHTS = {
    "bfloat16": 16.0, "int8_sym": 8.0, "int8_asym": 8.0, "int4_sym": 4.0, "int4_asym": 4.0,
    "nf4": 4.0, "mxfp4": 4.0,
}  # fmt: skip
"""Bits of a code."""
SCALED_BY_GROUP = {"int4_sym": 16, "int4_asym": 20, "nf4": 16, "mxfp4": 8}
"""Bits of a group's scale and zero point; the others have them per column."""
ONCE = threading.Lock()
"""NNCF writes to the process' output and settings while it works."""


@dataclass(frozen=True)
class OpenVino(Peer):
    """OpenVINO's product.

    Parameters
    ----------
    weights : 'bfloat16', 'int8_sym', 'int8_asym', 'int4_sym', 'int4_asym', 'nf4' or 'mxfp4'
    group : rows of B that share a scale in 4 bits ('mxfp4' has 32); k is filled up with zeros to
        whole groups
    """

    packages: ClassVar[tuple[str, ...]] = ("openvino", "nncf")
    modules: ClassVar[tuple[str, ...]] = ("openvino", "nncf")
    speaks: ClassVar[str] = "numpy"
    route: ClassVar[str] = "OpenVINO (cpu)"
    range: ClassVar[tuple[float, float]] = (2.0**-4, 2.0**10)

    weights: str = "int8_asym"
    group: int = 64

    def __post_init__(self) -> None:
        _checks.choice("weights", self.weights, tuple(WEIGHTS))
        _checks.choice("group", self.group, (32, 64, 128))

    def pack(self, B: Any) -> Any:
        by_group = self.weights in SCALED_BY_GROUP
        group = 32 if self.weights == "mxfp4" else self.group
        made = model(np.pad(B, ((0, -B.shape[0] % group if by_group else 0), (0, 0))))
        if self.weights != "bfloat16":
            with nncf_quietly() as nncf:
                mode = nncf.CompressWeightsMode[self.weights.upper()]
                options = {"group_size": group, "all_layers": True} if by_group else {}
                made = nncf.compress_weights(made, mode=mode, **options)
        return compiled(made)

    def multiply(self, A: Any, packed: Any) -> Any:
        run, k = packed
        A = np.ascontiguousarray(np.pad(A, ((0, 0), (0, k - A.shape[1])))) if k > A.shape[1] else A
        return np.array(run(np.ascontiguousarray(A))[0], copy=True)

    def operand_bits(self, m: int, k: int, n: int) -> tuple[int, int]:
        if self.weights == "bfloat16":
            return 16 * m * k, 16 * k * n
        rounded = self.weights.startswith("int")
        left = 8 * m * k + 32 * -(-k // 32) * m if rounded else 16 * m * k
        group = 32 if self.weights == "mxfp4" else self.group
        scales = SCALED_BY_GROUP.get(self.weights, 24) * n
        scales *= -(-k // group) if self.weights in SCALED_BY_GROUP else 1
        return left, int(WEIGHTS[self.weights]) * k * n + scales


def model(B: Any) -> Any:
    """An OpenVINO model that multiplies by B (k x n), kept as (n x k) as a linear layer's is."""
    import openvino
    from openvino import opset13

    A = opset13.parameter([-1, len(B)], np.float32, name="A")
    product = opset13.matmul(A, opset13.constant(np.ascontiguousarray(B.T)), False, True)
    return openvino.Model([product], [A], "product")


def compiled(made: Any) -> tuple[Any, int]:
    """What runs a model on the CPU, and its k."""
    import torch

    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    k = made.inputs[0].partial_shape[1].get_length()
    return core().compile_model(made, "CPU", options), int(k)


@cache
def core() -> Any:
    """OpenVINO's runtime, one for the process."""
    import openvino

    return openvino.Core()


@contextlib.contextmanager
def nncf_quietly() -> Iterator[Any]:
    """NNCF, which neither prints nor reports home inside the block."""
    with ONCE, contextlib.redirect_stdout(io.StringIO()):
        before = os.environ.get("NNCF_CI")
        os.environ["NNCF_CI"] = "1"  # read when it is imported
        try:
            import nncf
        finally:
            if before is None:
                del os.environ["NNCF_CI"]
            else:
                os.environ["NNCF_CI"] = before
        logger = logging.getLogger("nncf")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield nncf
        finally:
            logger.setLevel(level)


METHOD = OpenVino("openvino", title="OpenVINO", cites=("openvino",))
