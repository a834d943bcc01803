"""Random products, `CASES` of `fuzz.py`: arrays of any make, in any state of torch and NumPy.

A product must be what it is for plain arrays in the usual state, or be refused as that is.
"""

import random
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, reduce
from pathlib import Path

import numpy as np
import torch
from test_ambient import CASES as METHODS
from test_ambient import ROUNDED, STATES
from test_arrays import NUMPY, TORCH

import lrqmm

MAKES = {"numpy": NUMPY, "torch": TORCH}
DTYPES = {
    "numpy": (np.float32, np.float64, np.float16),
    "torch": (torch.float32, torch.float64, torch.bfloat16),
}
UNCHANGED = {  # makes that leave the dtype as it is, and take every one
    "numpy": [name for name in NUMPY if "float64" not in name],
    "torch": [name for name in TORCH if name != "negated view"],
}


def describe(rng: random.Random, library: str, fused: bool) -> dict:
    """A case."""
    makes = UNCHANGED[library]
    return {
        "library": library,
        "shape": [rng.choice((1, 2, 3, 7, 16, 33, 64, 65)) for _ in range(3)],
        "method": rng.choice([case for case in METHODS if bool(case[1]) == fused]),
        "left": rng.sample(makes, rng.randrange(3)),
        "right": rng.sample(makes, rng.randrange(3)),
        "states": rng.sample(list(STATES), rng.randrange(3)),
        "prepared": rng.random() < 0.5,
        "dtype": rng.randrange(3),
        "power": rng.choice((0, 0, 0, 30, -30, 100, -50)),
        "seed": rng.randrange(2**32),
        "values": rng.choice(("normal", "uniform", "zeros", "one column", "integers")),
    }


def matrices(case: dict) -> list:
    rng = np.random.default_rng(case["seed"])
    m, k, n = case["shape"]
    made = []
    for shape in ((m, k), (k, n)):
        X = rng.standard_normal(shape) if case["values"] == "normal" else rng.random(shape)
        if case["values"] == "zeros":
            X = np.zeros(shape)
        if case["values"] == "one column":
            X[:, 1:] = 0
        if case["values"] == "integers":
            X = np.round(20 * X)
        made.append(X)
    made[0] = made[0] * 2.0 ** case["power"]
    dtype = DTYPES[case["library"]][case["dtype"]]
    if case["library"] == "torch":
        return [torch.from_numpy(X).to(dtype) for X in made]
    return [X.astype(dtype) for X in made]


def product(case: dict, left, right):
    name, params = case["method"]
    method = lrqmm.get_method(name, **params)
    return method.matmul(left, method.prepare(right) if case["prepared"] else right)


def attempt(case: dict) -> None:
    """Multiply; AssertionError where the answer is not the usual one."""
    with np.errstate(over="ignore"):
        plain = matrices(case)
    refusals = (ValueError, TypeError, lrqmm.Unsupported)
    try:
        usual = product(case, *plain)
    except refusals as error:
        usual = error
    turned = [
        reduce(lambda X, make: MAKES[case["library"]][make](X), case[side], X)
        for side, X in zip(("left", "right"), plain, strict=True)
    ]
    try:
        with ExitStack() as stack:
            for state in case["states"]:
                stack.enter_context(STATES[state]())
            C = product(case, *turned)
    except refusals as error:
        if type(error) is type(usual):
            raise ValueError(f"products: {error}") from error
        raise AssertionError(f"refused: {error}; {case}") from error
    assert not isinstance(usual, Exception), f"not refused: {usual}; {case}"
    C, usual = (torch.as_tensor(X, device="cpu") for X in (C, usual))
    assert (C.dtype, C.shape) == (usual.dtype, usual.shape), f"{C.dtype} {tuple(C.shape)}; {case}"
    if not torch.equal(C, usual):
        missed = float(torch.linalg.norm(C.double() - usual.double()))
        laid = bool(case["left"] or case["right"])  # BLAS adds up in an order of its own
        share = 1e-5 if laid else 1e-6 if set(case["states"]) & set(ROUNDED) else 0.0
        right = missed <= share * float(torch.linalg.norm(usual.double()))
        assert right, f"wrong by {missed}; {case}"


def build(
    library: str, fused: bool, rng: random.Random, folder: Path
) -> tuple[Path, Callable[[], None]]:
    return Path("products"), partial(attempt, describe(rng, library, fused))


CASES = {
    f"products, {library}, {'fused' if fused else 'plain'}": partial(build, library, fused)
    for library in MAKES
    for fused in (False, True)
}
for name, params in METHODS:  # what is loaded on first use is no matter of a case
    try:
        lrqmm.matmul(torch.ones(3, 4), torch.ones(4, 2), name, **params)
    except lrqmm.Unsupported:
        continue


if __name__ == "__main__":
    import sys

    for number in range(int(sys.argv[1])):
        for name, case in CASES.items():
            try:
                case(random.Random(f"{name} {number}"), Path())[1]()
            except ValueError:
                pass
            except Exception as error:
                print(name, number, type(error).__name__, error)
