"""Float products, the baselines: one GEMM in float32, TF32 or bfloat16, nothing quantised."""

from dataclasses import Field, dataclass
from typing import Any

from lrqmm._checks import Array
from lrqmm.products.backends import backend_of
from lrqmm.products.cost import Cost
from lrqmm.products.method import NOTHING
from lrqmm.products.phases import phase
from lrqmm.products.wholeproduct import WholeProduct

BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class FloatProduct(WholeProduct):
    """C = A B in one precision; it has no parameters, and is its own recipe."""

    precision: str
    needs: str = NOTHING

    @property
    def _own(self) -> list[Field[Any]]:
        return []

    @property
    def float32_precision(self) -> str:
        return "tf32" if self.precision == "tf32" else "ieee"

    def _prepare(self, B: Array, calibration: Array | None, *, scratch: bool) -> Any:
        return B

    def _multiply(self, A: Array, prepared: Any, out: Array | None) -> Array:
        with phase("product"):
            return backend_of(A).float_matmul(A, prepared, self.precision, out)

    def integer_route(self, like: Array) -> str:
        return "none"

    def cost(self, m: int, k: int, n: int) -> Cost:
        cast = 0 if BYTES[self.precision] == 4 else 6 * (m * k + k * n)
        moved = BYTES[self.precision] * (m * k + k * n) + 4 * m * n
        held = 8 * BYTES[self.precision] * (m * k + k * n)
        return Cost(float_operations=2 * m * k * n, bytes=cast + moved, operand_bits=held)
