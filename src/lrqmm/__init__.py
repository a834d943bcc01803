"""Low-bit matrix products with low-rank error compensation, their rivals, honest measurement."""

from typing import TYPE_CHECKING, Any

from lrqmm._checks import Unsupported
from lrqmm.method import Method, Prepared, get_method, matmul
from lrqmm.methods import list_components, list_methods
from lrqmm.products import apriori
from lrqmm.products.adaptive import ToleranceNotReached
from lrqmm.products.backends import integer_matmul, integer_route

if TYPE_CHECKING:
    from lrqmm.advice import advise
    from lrqmm.nn.replace import replace_layers

__version__ = "0.1.0"

__all__ = [
    "Method",
    "Prepared",
    "ToleranceNotReached",
    "Unsupported",
    "advise",
    "apriori",
    "get_method",
    "integer_matmul",
    "integer_route",
    "list_components",
    "list_methods",
    "matmul",
    "replace_layers",
]


def __getattr__(name: str) -> Any:
    if name == "advise":  # which not everyone waits for
        from lrqmm.advice import advise

        return advise
    if name == "replace_layers":  # with torch, which takes seconds to import
        from lrqmm.nn.replace import replace_layers

        return replace_layers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
