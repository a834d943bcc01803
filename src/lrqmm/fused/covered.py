"""What the fused execution covers of a composition's parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrqmm import _checks
from lrqmm.products.lowrank import LowRank
from lrqmm.products.quantize import group_length

if TYPE_CHECKING:
    from lrqmm.products.composition import Composition

STEP = 8
"""Inner indices that kernels of grouped codes take together; groups are whole numbers of them."""

COVERED: dict[str, tuple[Any, ...]] = {
    "levels": ("odd", "signed"),
    "zero_point": (None,),
    "zero_point_a": ("same", None, "integer"),
    "terms": ("full", "first"),
    "sketch": ("ones+sign", "sign"),
    "factor_dtype": ("int8",),
}
"""Parameters of which it has some values only."""


def check(method: Composition) -> None:
    """Raise ValueError, which names what is allowed, for parameters that it does not cover."""
    parameters = method.parameters
    for name, allowed in COVERED.items():
        if name in parameters:
            try:
                _checks.choice(name, parameters[name], allowed)
            except ValueError as error:
                raise ValueError(f"{error} with execution='fused'") from None
    _check_granularity(method)
    if parameters.get("rank") == "auto":
        raise ValueError("rank is 'auto'; allowed: an integer or None with execution='fused'")
    zero_point = parameters["zero_point_a"] == "integer"
    usual = not zero_point and parameters.get("levels", "odd") == "odd"
    if not usual and parameters["rounding"] != "nearest":
        raise ValueError(
            "rounding is 'truncate'; allowed: 'nearest' with zero points, levels='signed' and "
            "execution='fused'"
        )


def _check_granularity(method: Composition) -> None:
    granularity, compensator = method.quantizer.granularity, method.compensator
    given = f"granularity is {granularity!r}; allowed:"
    if granularity == "vector":
        return
    if granularity == "tensor":
        raise ValueError(f"{given} 'vector', 'group:N' with execution='fused'")
    if group_length(granularity, 2**31) % STEP:
        raise ValueError(f"{given} groups of a multiple of {STEP} with execution='fused'")
    if compensator.span in ("means", "product"):
        raise ValueError(f"{given} 'vector' for this method with execution='fused'")
    beside = "with scales by group and execution='fused'"
    if isinstance(compensator, LowRank) and compensator.sides != "b":
        raise ValueError(f"sides is {compensator.sides!r}; allowed: 'b' {beside}")
    if method.parameters["zero_point_a"] == "integer":
        raise ValueError(f"zero_point_a is 'integer'; allowed: None or 'same' {beside}")
