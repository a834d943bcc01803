"""Low-bit matrix products with low-rank error compensation, their rivals, honest measurement."""

from importlib import import_module
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

LATER = {"advise": "lrqmm.advice", "replace_layers": "lrqmm.nn.replace"}
"""What is imported when it is asked for: the second brings torch, which takes seconds."""


def __getattr__(name: str) -> Any:
    module = LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
