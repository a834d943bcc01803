"""BesTLA's products of low-bit weights, by `auto_round_kernel` of Intel's AutoRound.

Symmetric codes with one scale per column and group of rows, packed once. With compute 'int8' A is
rounded to 8 bits, by group, inside the kernel. On processors for which it has no such kernel the
library takes float32 and does not say so (0.16.0 on an AMD EPYC with AVX512-VNNI): that is tried
once per process, and refused.
Source: intel/auto-round, auto_round_extension/ark (distribution auto-round-lib).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from lrqmm import _checks
from lrqmm._checks import Unsupported
from lrqmm.products.peer import Peer
from lrqmm.products.quantize import Uniform

COMPUTE = {"int8": "int8", "bfloat16": "bf16", "float32": "fp32"}


@dataclass(frozen=True)
class Packed:
    """A weight as BesTLA keeps it, and what its product is told: n, k, rows that share a scale,
    and types."""

    weight: Any
    about: tuple[Any, ...]


@dataclass(frozen=True)
class Ark(Peer):
    """BesTLA's product.

    Parameters
    ----------
    bits : of a weight: 2, 4 or 8
    group : rows of B that share a scale, a multiple of 32; None is all
    compute : 'int8', 'bfloat16' or 'float32': in what products are summed up
    """

    packages: ClassVar[tuple[str, ...]] = ("auto-round-lib", "torch")
    modules: ClassVar[tuple[str, ...]] = ("auto_round_kernel",)

    bits: int = 8
    group: int | None = None
    compute: str = "int8"

    def __post_init__(self) -> None:
        _checks.choice("bits", self.bits, (2, 4, 8))
        _checks.choice("compute", self.compute, tuple(COMPUTE))
        if self.group is not None and (_checks.integer("group", self.group, 32) % 32):
            raise ValueError(f"group is {self.group}; allowed: None, or a multiple of 32")

    def integer_route(self, like: Any) -> str:
        return f"auto_round_kernel.woqgemm, {self.compute} (cpu)"

    def pack(self, B: Any) -> Packed:
        if self.compute != "float32" and not computes(self.compute):
            raise Unsupported(
                f"auto-round-lib computes in float32 on this processor, not in {self.compute}; "
                "allowed: compute='float32'"
            )
        return packed(B, self.bits, self.group, self.compute)

    def multiply(self, A: Any, packed: Packed) -> Any:
        return product(A, packed)

    def operand_bits(self, m: int, k: int, n: int) -> tuple[int, int]:
        groups = 1 if self.group is None else -(-k // self.group)
        left = {
            "int8": 8 * m * k + 32 * groups * m, "bfloat16": 16 * m * k, "float32": 32 * m * k,
        }  # fmt: skip
        return left[self.compute], self.bits * k * n + 32 * groups * n


def packed(B: Any, bits: int, group: int | None, compute: str) -> Packed:
    """B (k x n) as BesTLA keeps it; k is filled up with zeros to whole groups."""
    import auto_round_kernel
    import torch

    k, n = B.shape
    group = min(group or k, -(-k // 32) * 32) if group else k
    weight = torch.nn.functional.pad(B.T, (0, -k % group))
    found = Uniform(bits=bits, granularity=f"group:{group}").quantize(weight)
    types = (COMPUTE[compute], f"int{bits}", "fp32", False)
    codes, scale = found.codes.T.contiguous(), found.scale.T.contiguous()
    blob = auto_round_kernel.repack_quantized_weight(
        codes, scale, torch.empty(0, dtype=torch.int8, device="cpu"), group, *types
    )
    return Packed(blob, (n, weight.shape[1], group, *types))


def product(A: Any, packed: Packed) -> Any:
    """A (m x k) times the weight."""
    import auto_round_kernel
    import torch

    n, k, *_ = packed.about
    A = torch.nn.functional.pad(A, (0, k - A.shape[1])).contiguous()
    out = torch.empty((len(A), n), dtype=torch.float32, device="cpu")
    no_bias = torch.empty(0, dtype=torch.float32, device="cpu")
    return auto_round_kernel.woqgemm(A, packed.weight, no_bias, *packed.about, out)


@cache
def computes(compute: str) -> bool:
    """Whether products differ from those in float32: whether the library does what it is asked."""
    import torch

    X = torch.linspace(-1, 1, 64 * 64, device="cpu", dtype=torch.float32).reshape(64, 64)
    asked, exact = (product(X, packed(X.T, 8, None, each)) for each in (compute, "float32"))
    return float((asked - exact).norm() / exact.norm()) > 1e-5


METHOD = Ark("ark", title="AutoRound kernels (BesTLA)", short="ARK", cites=("cheng2024autoround",))
