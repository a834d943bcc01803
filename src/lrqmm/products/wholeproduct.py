"""Methods that are no composition of transform, quantiser and compensator: classes of their own.

One is a frozen dataclass whose fields, but for those of every recipe, are its parameters. The
object that its file defines is the method at its defaults, and builds the others.
"""

from dataclasses import Field, fields, replace
from typing import Any, ClassVar, Self

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm._parameters import Checked
from lrqmm.products.backends import integer_route
from lrqmm.products.method import Method, Recipe, needed


class WholeProduct(Checked, Recipe, Method):
    """A product by a recipe of its own."""

    ahead: ClassVar[bool] = False
    """Whether it is made for weights, right operands that are known ahead of time."""
    together: ClassVar[bool] = False
    """Whether what it does to the right operand depends on the left one, at every call."""

    @property
    def parameters(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in self._own}

    @property
    def defaults(self) -> dict[str, Any]:
        return {field.name: field.default for field in self._own}

    @property
    def usual_parameters(self) -> dict[str, Any]:
        return self.defaults

    @property
    def _own(self) -> list[Field[Any]]:
        of_recipes = {field.name for field in fields(Recipe)}
        return [field for field in fields(self) if field.name not in of_recipes]

    @property
    def needs(self) -> str:
        return needed((type(self),))

    def build(self, **params: Any) -> Self:
        """With these parameters; unknown ones raise TypeError."""
        _checks.known(f"method {self.name!r} has no parameter", params, self.defaults)
        return replace(self, **params)

    def integer_route(self, like: Array) -> str:
        return integer_route(like)

    def check_shape(self, m: int, k: int, n: int) -> None:
        _checks.rank(getattr(self, "rank", None), m, k, n)
