"""The benchmark: studies, their inputs and measures, the machine, verified runs."""

from lrqmm._extras import needs_extra

needs_extra(__name__, "bench")
