"""What a metric is."""

import math
from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Metric:
    """What a value means.

    Attributes
    ----------
    name : in the column `metric`
    title : heading of a column or axis
    better : which values are better; None where neither is
    least, most : range of possible values
    form : format of a value in a table
    scale : what a value is multiplied by before it is formatted
    score : whether results are judged by it, beside their error
    main : whether `lrqmm compare` compares it
    detail : whether it is left out of overviews, as the errors of single layers are
    interval : whether overviews show its 95% interval
    """

    name: str
    title: str
    better: Better | None = None
    least: float = 0.0
    most: float = math.inf
    form: str = "{:.3g}"
    scale: float = 1.0
    score: bool = False
    main: bool = False
    detail: bool = False
    interval: bool = False

    def text(self, value: float) -> str:
        """A value as tables show it."""
        return self.form.format(self.scale * value)
