"""Table 4 by layer: ResNet-50's layers, summarised."""

import numpy as np
import pandas as pd

from lrqmm.figures import _data
from lrqmm.run.read import Run

NEEDS = ("resnet50",)


def tabulate(run: Run) -> pd.DataFrame:
    """One row per method and bits: the error over all layers, and how often it beats direct."""
    table = _data.variants(_data.errors(run, "resnet50"))
    direct = table[table["variant"] == "direct"].set_index(["layer", "bits"])["value"]
    affine = table[table["variant"] == "direct + zero point"].set_index(["layer", "bits"])["value"]
    rows = []
    for (bits, variant), group in table.groupby(["bits", "variant"], dropna=False, observed=True):
        errors = group.set_index(["layer", "bits"])["value"]
        worst = group.loc[group["value"].idxmax()]
        row = {
            "bits": bits,
            "method": variant,
            "rank": group["rank"].iloc[0],
            "layers": len(group),
            "geometric mean": float(np.exp(np.log(group["value"]).mean())),
            "median": group["value"].median(),
            "best": group["value"].min(),
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
    result = pd.DataFrame(rows).sort_values(["bits", "geometric mean"], ignore_index=True)
    return _data.titled(result, "Table 4 by layer: relative error over the layers of ResNet-50")
