"""Ablation, in full: gain over direct by data, rounding, method, terms, rank and sketch."""

from __future__ import annotations

import pandas as pd

from lrqmm.figures import _data
from lrqmm.run.read import Run


def tabulate(run: Run) -> pd.DataFrame:
    """One row a setting."""
    table = _data.ablation_gains(run)
    table.attrs["title"] = "Ablation: where the gain over the direct product comes from"
    return table
