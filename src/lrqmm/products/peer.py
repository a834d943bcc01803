"""Products of other libraries: what a user would pick in the place of this one, as methods.

A peer prepares the weight as its library does and multiplies by the library's own kernel, so its
error and its time are that library's. Nothing of a library is imported before a matrix is
multiplied by it. They run on a CPU.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import array_api_compat as compat

from lrqmm._checks import Array, Unsupported
from lrqmm._extras import absent
from lrqmm.products.backends import library_of
from lrqmm.products.cost import Cost
from lrqmm.products.phases import phase
from lrqmm.products.wholeproduct import WholeProduct


@dataclass(frozen=True)
class Peer(WholeProduct):
    """A product by another library.

    Attributes
    ----------
    packages : distributions that compute; rows of a study name their versions
    modules : what must be installed
    extra : of this package, which installs them
    speaks : 'torch' or 'numpy': what the library is handed, without a copy
    route : how it multiplies, in words
    range : between which the largest magnitude of an operand must lie for the library to keep its
        digits; others are multiplied by a power of two, and the product back. None: any
    imitated : whether the library's own product is another one than the one that runs here, so
        that the time means nothing
    """

    ahead: ClassVar[bool] = True
    writes_out: ClassVar[bool] = False
    modules: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = "peers"
    speaks: ClassVar[str] = "torch"
    route: ClassVar[str] = "none"
    range: ClassVar[tuple[float, float] | None] = None
    imitated: ClassVar[bool] = False

    @abstractmethod
    def pack(self, B: Any) -> Any:
        """B (k x n) float32, a tensor or array as the library `speaks`, as the library keeps a
        weight."""

    @abstractmethod
    def multiply(self, A: Any, packed: Any) -> Any:
        """A (m x k) float32 times the weight, (m x n) float32."""

    @abstractmethod
    def operand_bits(self, m: int, k: int, n: int) -> tuple[int, int]:
        """Bits that hold A and B: codes, scales, zero points; 32 an element of what stays float."""

    @property
    def needs(self) -> str:
        optional = self.extra if self.modules and self.extra == "peers" else ""
        return f"{super().needs}, a CPU" + (f", the extra `{optional}`" if optional else "")

    def integer_route(self, like: Array) -> str:
        return self.route

    def emulated(self, like: Array) -> bool:
        return self.imitated

    def cost(self, m: int, k: int, n: int) -> Cost:
        left, right = self.operand_bits(m, k, n)
        whole = left < 32 * m * k  # both operands are codes
        return Cost(
            integer_operations=2 * m * k * n if whole else 0,
            float_operations=0 if whole else 2 * m * k * n,
            bytes=4 * (m * k + k * n + m * n) + (2 * right + (2 * left if whole else 0)) // 8,
            operand_bits=left + right,
        )

    def _usual_state(self, like: Array) -> AbstractContextManager[None]:
        return self._both_states(like) if self.speaks == "torch" else super()._usual_state(like)

    @contextmanager
    def _both_states(self, like: Array) -> Iterator[None]:
        """Of the operands' library, and of torch, which multiplies."""
        import torch

        from lrqmm.products.backends.torch import usual_state_on

        with ExitStack() as stack:
            if torch.get_default_device().type != "cpu":  # libraries make tensors without saying
                stack.enter_context(torch.device("cpu"))
            stack.enter_context(super()._usual_state(like))
            stack.enter_context(usual_state_on("cpu", self.float32_precision))
            yield

    def _prepare(self, B: Array, calibration: Array | None, *, scratch: bool) -> Any:
        self._check_installed()
        given, power = self._in_range(self._given(B))
        with phase("quantize"):
            return self.pack(given), power

    def _multiply(self, A: Array, prepared: Any, out: Array | None) -> Array:
        packed, power = prepared
        given, other = self._in_range(self._given(A))
        with phase("product"):
            C = self.multiply(given, packed)
            if power * other != 1:
                C = C * (power * other)
            return _as(library_of(A), C)

    def _in_range(self, X: Any) -> tuple[Any, float]:
        """X over a power of two, and that power; 1 where the library keeps X's digits as it is."""
        if self.range is None:
            return X, 1.0
        xp = compat.array_namespace(X)
        largest = max(float(xp.max(X)), -float(xp.min(X)))
        if largest == 0 or self.range[0] <= largest <= self.range[1]:
            return X, 1.0
        power = 2.0 ** (math.frexp(largest)[1] - 1)
        return X * (1 / power), power

    def _check_installed(self) -> None:
        if missing := absent(self.modules):
            raise Unsupported(
                f"{self.name} needs {missing[0]}, which is not installed; install it with: "
                f"pip install 'lrqmm[{self.extra}]'"
            )

    def _given(self, X: Array) -> Any:
        """X as the library takes it; Unsupported where it is on another device."""
        library, device = library_of(X), str(compat.device(X))
        if library not in ("numpy", "torch") or device != "cpu":
            raise Unsupported(
                f"{self.name} multiplies NumPy and torch arrays on a CPU; these are of {library}, "
                f"on {device}"
            )
        return _as(self.speaks, X)


def _as(library: str, X: Array) -> Any:
    """The same memory as an array of the other library."""
    if library_of(X) == library:
        return X
    if library == "numpy":
        return X.numpy()
    import torch

    return torch.from_numpy(X if X.flags.writeable else X.copy())
