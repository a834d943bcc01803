"""Low-bit matrix products with low-rank error compensation, their rivals, honest measurement.

>>> import lrqmm
>>> lrqmm.get_method("lrqmm", bits=4, rank=8).name
'lrqmm'
"""

from lrqmm import apriori
from lrqmm._checks import Unsupported
from lrqmm.adaptive import ToleranceNotReached
from lrqmm.backends import integer_matmul, integer_route
from lrqmm.method import Method, Prepared, get_method, matmul
from lrqmm.methods import list_components, list_methods

__version__ = "0.1.0"

__all__ = [
    "Method",
    "Prepared",
    "ToleranceNotReached",
    "Unsupported",
    "apriori",
    "get_method",
    "integer_matmul",
    "integer_route",
    "list_components",
    "list_methods",
    "matmul",
]
