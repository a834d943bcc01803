"""Run folders: their schema, reading, merging and comparing them."""

from lrqmm._extras import needs_extra

needs_extra(__name__, "bench")
