"""Dynamic int8 of ONNX Runtime: int8 weights, one scale per column; uint8 activations, one in all.

`onnxruntime.quantization.quantize_dynamic(per_channel=True, weight_type=QInt8)` of a model of one
MatMul; the session fuses its nodes to one kernel. Scale and zero point of all of A are found at
every call. The session has as many threads as torch.
Source: ONNX Runtime, "Quantize ONNX models".
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lrqmm.products.peer import Peer


@dataclass(frozen=True)
class OnnxRuntime(Peer):
    """ONNX Runtime's dynamic int8 product."""

    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")
    modules: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "onnx_ir")
    speaks: ClassVar[str] = "numpy"
    route: ClassVar[str] = "onnxruntime DynamicQuantizeMatMul (cpu)"

    def pack(self, B: Any) -> Any:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as folder:  # it writes files only
            path = Path(folder) / "int8.onnx"
            quantize_dynamic(model(B), path, per_channel=True, weight_type=QuantType.QInt8)
            return session(onnx.load(path))

    def multiply(self, A: Any, packed: Any) -> Any:
        return packed.run(None, {"A": np.ascontiguousarray(A)})[0]

    def operand_bits(self, m: int, k: int, n: int) -> tuple[int, int]:
        return 8 * m * k + 40, 8 * k * n + 40 * n


def model(B: Any) -> Any:
    """An ONNX model that multiplies by B (k x n)."""
    from onnx import TensorProto, helper, numpy_helper

    k, n = B.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["A", "B"], ["C"], name="product")],
        "product",
        [helper.make_tensor_value_info("A", TensorProto.FLOAT, ["m", k])],
        [helper.make_tensor_value_info("C", TensorProto.FLOAT, ["m", n])],
        [numpy_helper.from_array(np.ascontiguousarray(B), "B")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    # there is nothing to pre-process; the quantiser would say so in the root logger
    helper.set_model_props(made, {"onnx.quant.pre_process": "onnxruntime.quant"})
    return made


def session(made: Any) -> Any:
    """What runs a model, on the CPU; between calls its threads do not spin."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(made.SerializeToString(), options, providers=providers)


METHOD = OnnxRuntime(
    "onnxruntime", title="ONNX Runtime int8", short="ORT int8", cites=("onnxruntime",)
)
