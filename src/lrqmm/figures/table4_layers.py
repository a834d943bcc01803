"""Table 4 by layer: ResNet-50's layers, summarised."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lrqmm.figures import _data
from lrqmm.run.read import Run


def tabulate(run: Run) -> pd.DataFrame:
    """A row a method and bits: the error over all layers, and how often it beats direct."""
    table = _data.variants(_data.errors(run, "resnet50"))
    direct = table[table["variant"] == "direct"].set_index(["layer", "bits"])["value"]
    affine = table[table["variant"] == "direct + zero point"].set_index(["layer", "bits"])["value"]
    rows = []
    for (bits, variant), own in table.groupby(["bits", "variant"], dropna=False, observed=True):
        errors = own.set_index(["layer", "bits"])["value"]
        worst = own.loc[own["value"].idxmax()]
        row = {
            "bits": bits,
            "method": variant,
            "rank": own["rank"].iloc[0],
            "layers": len(own),
            "geometric mean": float(np.exp(np.log(own["value"]).mean())),
            "median": own["value"].median(),
            "best": own["value"].min(),
            "worst": worst["value"],
            "worst layer": worst["layer"],
        }
        if not pd.isna(bits):
            for name, rival in (("direct", direct), ("direct + zero point", affine)):
                shared = errors.index.intersection(rival.index)
                if len(shared):
                    wins = (errors.loc[shared] < rival.loc[shared]).sum()
                    row[f"layers better than {name}"] = int(wins)
        rows.append(row)
    made = pd.DataFrame(rows)
    made.attrs["title"] = "Table 4 by layer: relative error over the layers of ResNet-50"
    return made.sort_values(["bits", "geometric mean"], ignore_index=True)
