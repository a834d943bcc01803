"""Random products for `make fuzz`: arrays of any make, in any state of torch and NumPy."""

import random
from contextlib import ExitStack
from functools import reduce

import numpy as np
import torch
from test_ambient import CASES, ROUNDED, STATES
from test_arrays import NUMPY, TORCH

import lrqmm

MAKES = {"numpy": NUMPY, "torch": TORCH}
DTYPES = {
    "numpy": (np.float32, np.float64, np.float16),
    "torch": (torch.float32, torch.float64, torch.bfloat16),
}
NO_CHANGE_OF_DTYPE = [name for name in NUMPY if "float64" not in name]


def describe(number: int) -> dict:
    """What case `number` is."""
    rng = random.Random(f"product {number}")
    library = rng.choice(("numpy", "torch"))
    makes = NO_CHANGE_OF_DTYPE if library == "numpy" else list(TORCH)
    return {
        "library": library,
        "shape": [rng.choice((1, 2, 3, 7, 16, 33, 64, 65)) for _ in range(3)],
        "method": rng.choice(CASES),
        "left": rng.sample(makes, rng.randrange(3)),
        "right": rng.sample(makes, rng.randrange(3)),
        "states": rng.sample(list(STATES), rng.randrange(3)),
        "prepared": rng.random() < 0.5,
        "dtype": rng.randrange(3),
        "power": rng.choice((0, 0, 0, 30, -30, 100, -50)),
        "values": rng.choice(("normal", "uniform", "zeros", "one column", "integers")),
    }


def matrices(case: dict, number: int) -> list:
    rng = np.random.default_rng(number)
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


def one(number: int) -> str:
    """'read' where a product is what it is for plain arrays in the usual state, or 'refused'
    where both are; else what went wrong."""
    case = describe(number)
    with np.errstate(over="ignore"):
        plain = matrices(case, number)
    try:
        usual = product(case, *plain)
    except (ValueError, TypeError, lrqmm.Unsupported) as error:
        usual = error
    turned = [
        reduce(lambda X, make: MAKES[case["library"]][make](X), case[side], X)
        for side, X in zip(("left", "right"), plain, strict=True)
    ]
    try:
        with ExitStack() as stack:
            for state in case["states"]:
                stack.enter_context(STATES[state]())
            found = product(case, *turned)
    except (ValueError, TypeError, lrqmm.Unsupported) as error:
        same = type(error) is type(usual)
        return "refused" if same else f"wrong: refused {case}: {error}"
    if isinstance(usual, Exception):
        return f"wrong: not refused {case}: {usual}"
    found, usual = (torch.as_tensor(C, device="cpu") for C in (found, usual))
    if found.dtype != usual.dtype or found.shape != usual.shape:
        return f"wrong: {found.dtype} {tuple(found.shape)} {case}"
    if torch.equal(found, usual):
        return "read"
    missed = float(torch.linalg.norm(found.double() - usual.double()))
    close = missed <= 1e-6 * float(torch.linalg.norm(usual.double()))
    return "read" if close and set(case["states"]) & set(ROUNDED) else f"wrong: by {missed} {case}"


if __name__ == "__main__":
    import sys
    from collections import Counter

    outcomes = Counter()
    for number in range(int(sys.argv[1])):
        outcome = one(number)
        outcomes[outcome.partition(":")[0]] += 1
        if outcome.startswith("wrong"):
            print(number, outcome)
    print(dict(outcomes))
