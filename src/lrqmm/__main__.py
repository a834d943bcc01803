"""`python -m lrqmm`: the command line."""

from lrqmm.cli import app

app(prog_name="lrqmm")
