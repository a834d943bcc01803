"""95% confidence intervals. Both take the observations as independent."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
CHUNK = 2**20  # indices drawn at a time


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's interval of a share, hits / count (J. Am. Stat. Assoc. 22, 1927); count at least
    1."""
    from scipy.stats import binomtest  # slow to import

    low, high = binomtest(hits, count).proportion_ci(method="wilson")
    return float(low), float(high)


def bootstrap(statistic: Callable[..., Any], *values: NDArray[np.float64]) -> tuple[float, float]:
    """Percentiles of a bootstrap over N items (Efron and Tibshirani, "An introduction to the
    bootstrap", 1993, section 13.3). The draws are the same at every call.

    Parameters
    ----------
    statistic : of arrays (..., N), their last axis the items, to an array (...)
    values : arrays (N,), which are resampled together
    """
    from scipy import stats  # slow to import

    count = len(values[0])
    if count < 2:
        return (float(statistic(*values)),) * 2
    low, high = stats.bootstrap(
        values, lambda *drawn, axis: statistic(*drawn), n_resamples=DRAWS, paired=True,
        vectorized=True, batch=max(1, CHUNK // count), method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(low), float(high)
