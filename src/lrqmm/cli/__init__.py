"""The command line: `lrqmm --help`. One file per command, or per group of commands."""

from lrqmm.cli import advise, doctor, matmul, methods, runs
from lrqmm.cli._app import app

__all__ = ["advise", "app", "doctor", "matmul", "methods", "runs"]
