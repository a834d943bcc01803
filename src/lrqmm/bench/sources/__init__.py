"""Products that mean something: one file a workload, in which the relatives of LRQMM were shown.

A module here defines `WORKLOAD`: named cases, each a pair A (m x k), B (k x n), and what an
approximate product C is worth there, beside its relative error. Its name is an input of a study.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lrqmm import _checks

Float32 = NDArray[np.float32]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Workload:
    """A family of products with a purpose.

    Attributes
    ----------
    name : of its module, and of the input
    title : in words, for figures
    cases : shape (m, k, n) of each
    make : (case, seed) to A and B, float32; the same arguments give the same matrices
    score : (case, seed, C) to metrics and their values; C is (m, n) float32
    packaged : whether its data come from a package registry
    """

    name: str
    title: str
    cases: Mapping[str, Shape]
    make: Callable[[str, int], tuple[Float32, Float32]]
    score: Callable[[str, int, Float32], dict[str, float]]
    packaged: bool = False


def list_workloads() -> list[str]:
    """Names of all workloads, sorted."""
    names = {info.name for info in pkgutil.iter_modules(__path__) if info.name[0] != "_"}
    return sorted(names - {"distributions", "files", "resnet50"})


@cache
def workload(name: str) -> Workload:
    """The workload of this name; ValueError where there is none."""
    _checks.choice("workload", name, list_workloads())
    found: Workload = importlib.import_module(f"{__name__}.{name}").WORKLOAD
    if found.name != name:
        raise ValueError(
            f"bench/sources/{name}.py defines WORKLOAD named {found.name!r}; allowed: {name!r}"
        )
    return found
