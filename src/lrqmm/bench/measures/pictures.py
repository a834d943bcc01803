"""What methods leave of pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from lrqmm.bench.measures._arrays import Arrays, Float32
from lrqmm.bench.measures._experiment import Grid, Scope
from lrqmm.bench.measures._methods import OfMethods
from lrqmm.bench.sources import Pair
from lrqmm.method import get_method

SIZE = 160
"""At most so many entries on a side are shown."""


class Pictures(Arrays, OfMethods):
    """What methods leave of pictures: every few entries of the product."""

    name = "pictures"

    def checked(self, where: str, scope: Scope, inputs: Sequence[Pair]) -> Grid:
        self.check_parameters(where)
        shapes = {(pair.m, pair.k, pair.n) for pair in inputs}
        return tuple(
            {"method": method, **setting}
            for method in self.chosen(scope)
            for setting in self.grid(where, method, shapes)
        )

    def arrays(self, A: Float32, B: Float32, setting: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        setting = dict(setting)
        name = setting.pop("method")
        C = get_method(name, **setting).matmul(A, B)
        step = -(-max(C.shape) // SIZE)
        return {name: C[::step, ::step]}


MEASURE = Pictures
