"""Ablation, in full: gain over direct by data, rounding, method, terms, rank and sketch."""

import pandas as pd

from lrqmm.figures import _data
from lrqmm.run.read import Run

NEEDS = ("ablation",)


def tabulate(run: Run) -> pd.DataFrame:
    """One row per setting."""
    table = _data.ablation_gains(run)
    return _data.titled(table, "Ablation: where the gain over the direct product comes from")
