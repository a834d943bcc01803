"""Titles of inputs and networks: a run's manifest records them, and figures read them there."""

from __future__ import annotations

from lrqmm.bench.networks import NETWORKS
from lrqmm.bench.sources import list_sources


def titles() -> dict[str, str]:
    """The title of every input and network by name."""
    inputs = {name: title for source in list_sources() for name, title in source.titles.items()}
    return inputs | {name: NETWORKS.get(name).title for name in NETWORKS.names()}
