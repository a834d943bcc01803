"""Counting what a product really does: matrix-product operations and bytes of every torch call."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from lrqmm._checks import Array
from lrqmm.method import Method

aten = torch.ops.aten
GEMMS = {
    aten.mm.default: "float_operations",
    aten.bmm.default: "float_operations",
    aten._int_mm.default: "integer_operations",
}


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, of every torch call in its block, operations of matrix products and bytes touched.

    A multiply-add is two operations. Bytes are the sizes of each call's tensor arguments and
    results; views are free.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = {"integer_operations": 0, "float_operations": 0, "bytes": 0}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        aliases = [result.alias_info for result in func._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases):
            leaves = tree_flatten((args, kwargs, out))[0]
            self.counts["bytes"] += sum(x.nbytes for x in leaves if isinstance(x, torch.Tensor))
        if func in GEMMS:
            self.counts[GEMMS[func]] += 2 * out.numel() * args[0].shape[-1]
        return out


def count(method: Method, A: Array, B: Array) -> dict[str, int]:
    """Integer and float operations of the matrix products, and bytes, of one product of tensors."""
    counter = OperationCounter()
    with counter:
        method.matmul(A, B, check_finite=False)
    return counter.counts
