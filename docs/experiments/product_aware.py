"""Open questions of the product-aware method, measured: `python docs/experiments/product_aware.py`.

The method corrects Ã B̃ by one range for each residual (`lrqmm/methods/lrqmm_aware.py`). Here:

    joint    one range Q of the whole error E = A B - Ã B̃ = R_A B + Ã R_B, correction Q Qᵀ E
    split    2r directions shared unevenly by the two residuals, and rules that choose the shares
    mean     the residuals' means taken out first, the sketch orthogonal to them
    kept     the right residual's factors found on one left operand, used for another

Everything else stays at the defaults: oversampling 8, one power iteration, all terms. The tables
are printed as Markdown; what they say is in `docs/product-aware.md`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrqmm._checks import Array
from lrqmm.bench.data.pictures import labelled_pictures
from lrqmm.bench.networks.resnet50.model import load_resnet50
from lrqmm.bench.sources.distributions import sample
from lrqmm.error import exact_product, relative_error
from lrqmm.methods.hadamard import Hadamard
from lrqmm.methods.lrqmm import LRQMM
from lrqmm.methods.lrqmm_aware import LRQMMAware
from lrqmm.methods.mean_fix import MeanFix
from lrqmm.nn.capture import capture
from lrqmm.products.lowrank import LEFT, RIGHT
from lrqmm.products.parts import Factors, Operand, compensate
from lrqmm.products.quantize import Uniform
from lrqmm.products.quantized import product
from lrqmm.products.rsvd import range_basis, sketch_matrix

SIZE, SEEDS, RANKS, BITS = 512, 3, (4, 16), 4
DISTRIBUTIONS = ("uniform01", "normal", "exponential", "outliers", "lowrank", "correlated")
LAYERS = ("res2b_branch2b", "res3b_branch2c", "res4c_branch2a")
PICTURES = 2  # of the operand, and as many others of the one held out
HELD_OUT = (2, 4, 8, 16)  # pictures, in a table of their own
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "zero point": {"zero_point_a": "integer"},
    "Hadamard": {"hadamard": True},
}
OVERSAMPLING, PASSES = LRQMMAware.oversampling, LRQMMAware.power_iterations


# One product, quantised


@dataclass(frozen=True)
class Case:
    """A product to correct.

    Attributes
    ----------
    left, right : Operand
        A (m x k) and B (k x n), quantised; in the Hadamard basis where there is one.
    other : Operand
        As many other rows of A's source, quantised alike.
    C : ndarray
        Ã B̃, float32.
    exact : ndarray
        A B, float64.
    """

    left: Operand
    right: Operand
    other: Operand
    C: Array
    exact: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """m, k and n."""
        return *self.left.exact.shape, self.right.exact.shape[1]

    def error(self, correction: Array | float = 0.0) -> float:
        """‖C + correction - A B‖ / ‖A B‖."""
        return relative_error(self.C + correction, self.exact)


def quantised(
    A: Array, other: Array, B: Array, *, zero_point_a: str | None = None, hadamard: bool = False
) -> Case:
    """A B at 4 bits, to nearest, with one scale per row of A and per column of B."""
    exact = exact_product(A, B)
    quantizer = Uniform(bits=BITS, zero_point_a=zero_point_a)
    if hadamard:
        transform = Hadamard()
        signs = transform.fit(B, quantizer, None)
        A, other = transform.left(A, signs), transform.left(other, signs)
        B = transform.right(B, signs)
    left, held_out = (Operand.quantize(X, quantizer.left) for X in (A, other))
    right = Operand.quantize(B, quantizer, right=True)
    return Case(left, right, held_out, product(left.quantized, right.quantized), exact)


# The method, with a rank and a width of its own for each side


def directions(R: Array, X: Array, width: int, side: int) -> tuple[Array, Array]:
    """Leading left singular vectors of R X, and its singular values, by a sketch so wide."""
    width = min(width, *R.shape, X.shape[1])
    omega = sketch_matrix(R, X.shape[1], width, LRQMMAware.sketch, (0, side))
    Q = range_basis(lambda V: R @ (X @ V), lambda U: X.T @ (R.T @ U), omega, PASSES)
    U, s, _ = np.linalg.svd((Q.T @ R) @ X, full_matrices=False)
    return Q @ U, s


def left_directions(case: Case, width: int) -> tuple[Array, Array]:
    """Of R_A B."""
    return directions(case.left.residual, case.right.exact, width, LEFT)


def right_directions(case: Case, width: int) -> tuple[Array, Array]:
    """Of (Ã R_B)ᵀ."""
    return directions(case.right.residual.T, case.left.approx.T, width, RIGHT)


def projected(case: Case, Q: Array, P: Array) -> Array:
    """The correction with L_A = Q Qᵀ R_A and L_B = R_B P Pᵀ; Q or P may have no columns."""
    left = (Q, Q.T @ case.left.residual)
    right = (case.right.residual @ P, P.T)
    return compensate(case.left, case.right, left, right, "full")


def split(case: Case, left_rank: int, right_rank: int, width: int | None = None) -> Array:
    """The correction with so many directions a side; two equal ranks are the library's method.

    A sketch is `width` wide, by default a side's rank and the oversampling.
    """
    Q, _ = left_directions(case, width or left_rank + OVERSAMPLING)
    P, _ = right_directions(case, width or right_rank + OVERSAMPLING)
    return projected(case, Q[:, :left_rank], P[:, :right_rank])


# (a) One range for both


def joint(case: Case, rank: int) -> Array:
    """Q Qᵀ E for the rank-s range Q of E = A B - C, which is R_A B + Ã R_B."""
    A, B, C = case.left.exact, case.right.exact, case.C
    width = min(rank + OVERSAMPLING, *C.shape)
    omega = sketch_matrix(C, C.shape[1], width, LRQMMAware.sketch, (0, LEFT))

    def forward(V: Array) -> Array:  # E V
        return A @ (B @ V) - C @ V

    def backward(U: Array) -> Array:  # Eᵀ U
        return B.T @ (A.T @ U) - C.T @ U

    Q = range_basis(forward, backward, omega, PASSES)
    small = backward(Q).T
    U, _, _ = np.linalg.svd(small, full_matrices=False)
    U = U[:, :rank]
    return (Q @ U) @ (U.T @ small)


def separate_operations(m: int, k: int, n: int, rank: int) -> int:
    """Of the library's method, as it models them."""
    return LRQMMAware(rank=rank).cost(m, k, n).float_operations


def joint_operations(m: int, k: int, n: int, rank: int) -> int:
    """Of `joint`, counted alike; E V by way of C or of both residuals, whichever takes fewer."""
    width = min(rank + OVERSAMPLING, m, n)
    once = min(m * k + k * n + m * n, 2 * (m * k + k * n))
    return 2 * (2 * PASSES + 2) * once * width + 2 * m * n * rank


def largest_rank(operations: Callable[..., int], m: int, k: int, n: int, rank: int) -> int:
    """The largest rank at which a way takes no more operations than the library's method."""
    most = separate_operations(m, k, n, rank)
    return sum(operations(m, k, n, s) <= most for s in range(1, min(m, n) + 1))


def rank_of_equal_storage(m: int, k: int, n: int, rank: int) -> int:
    """The largest joint rank with s(m + n) <= r(m + k) + r(k + n) stored numbers."""
    return min(rank * (m + 2 * k + n) // (m + n), m, n)


def smallest_error(case: Case, rank: int) -> float:
    """Relative error that no correction of this rank can beat: the rest of E's singular values."""
    E = case.exact - case.C
    E = E if E.shape[0] >= E.shape[1] else E.T
    energies = np.clip(np.linalg.eigvalsh(E.T @ E), 0, None)  # ascending
    rest = energies[: max(len(energies) - rank, 0)].sum()
    return float(np.sqrt(rest) / np.linalg.norm(case.exact))


# (b) Unequal shares


def shares(s_left: Array, s_right: Array, total: int) -> tuple[int, int]:
    """How many of the `total` largest values are in the one list and in the other."""
    is_left = np.concatenate([np.ones(len(s_left)), np.zeros(len(s_right))])
    largest = np.argsort(-np.concatenate([s_left, s_right]), kind="stable")[:total]
    count = int(is_left[largest].sum())
    return count, len(largest) - count


def chosen_split(case: Case, rank: int, width: int) -> tuple[tuple[int, int], Array]:
    """Two sketches so wide, and the 2r directions that hold most: their numbers, the correction.

    With a width of r + oversampling this takes no more operations than equal shares: the spare
    directions are there already. They then bound the shares, to r ± oversampling.
    """
    Q, s_left = left_directions(case, width)
    P, s_right = right_directions(case, width)
    left, right = shares(s_left, s_right, 2 * rank)
    return (left, right), projected(case, Q[:, :left], P[:, :right])


def storage_ratio(case: Case, rank: int, left: int, right: int) -> float:
    """Numbers stored in factors of these ranks over those of equal ranks."""
    m, k, n = case.shape
    return (left * (m + k) + right * (k + n)) / (rank * (m + 2 * k + n))


# (c) Means first


def directions_beside(R: Array, X: Array, u: Array, rank: int, side: int) -> Array:
    """Leading left singular vectors of (I - u uᵀ) R X, orthogonal to u."""
    width = min(rank + OVERSAMPLING, R.shape[0] - 1, R.shape[1], X.shape[1])
    omega = sketch_matrix(R, X.shape[1], width, LRQMMAware.sketch, (0, side))

    def forward(V: Array) -> Array:
        Y = R @ (X @ V)
        return Y - u @ (u.T @ Y)

    def backward(U: Array) -> Array:
        return X.T @ (R.T @ (U - u @ (u.T @ U)))

    Q = range_basis(forward, backward, omega, PASSES)
    U, _, _ = np.linalg.svd((Q.T @ R) @ X, full_matrices=False)
    return Q @ U[:, :rank]


def mean_factors(R: Array, X: Array, rank: int, side: int, way: str) -> Factors:
    """Factors of R (a x k) from its row means R 1 / k and so many directions more.

    With u = R 1 / ‖R 1‖ and R' = R - (R 1 / k) 1ᵀ, L is

        beside:   (R 1 / k) 1ᵀ + Q Qᵀ R',   Q from the range of R X and orthogonal to u
        deflated: (R 1 / k) 1ᵀ + Q Qᵀ R',   Q from the range of R' X
        basis:    u uᵀ R + Q Qᵀ R,          Q as in the first
    """
    mean, ones = R.mean(axis=1, keepdims=True), np.ones((1, R.shape[1]), np.float32)
    u = np.linalg.qr(mean)[0]
    rest = R - mean @ ones
    if way == "deflated":
        Q = directions(rest, X, rank + OVERSAMPLING, side)[0][:, :rank]
    else:
        Q = directions_beside(R, X, u, rank, side)
    first, rest = ((u, u.T @ R), R) if way == "basis" else ((mean, ones), rest)
    return np.concatenate([first[0], Q], axis=1), np.concatenate([first[1], Q.T @ rest])


def mean_first(case: Case, rank: int, way: str) -> Array:
    """The correction with means and so many directions on both sides."""
    A, B = case.left, case.right
    left = mean_factors(A.residual, B.exact, rank, LEFT, way)
    U, V = mean_factors(B.residual.T, A.approx.T, rank, RIGHT, way)
    return compensate(A, B, left, (V.T, U.T), "full")


def mean_only(case: Case) -> Array:
    """The library's `mean_fix`."""
    fix = MeanFix()
    return fix.correct(case.left, case.right, fix.prepare(case.right, None))


# (d) The right factors kept


def right_factors(case: Case, rank: int, found_on: str) -> Factors | None:
    """Factors of R_B found on the operand, on other rows, on R_B alone, or none."""
    if found_on == "none":
        return None
    if found_on == "residual":
        plain = LRQMM(rank=rank)
        return plain.right_factors(case.left, case.right, plain.prepare(case.right, None))
    operand = {"operand": case.left, "other rows": case.other}[found_on]
    return LRQMMAware(rank=rank).right_factors(operand, case.right, None)


def kept(case: Case, rank: int, found_on: str) -> Array:
    """The correction with such right factors, and left ones found on the operand."""
    left = LRQMMAware(rank=rank).left_factors(case.left, case.right)
    return compensate(case.left, case.right, left, right_factors(case, rank, found_on), "full")


def remaining(case: Case, rank: int, found_on: str) -> float:
    """‖Ã (R_B - L_B)‖ / ‖Ã R_B‖: how much of the right residual's error such factors leave."""
    whole = case.left.approx @ case.right.residual
    factors = right_factors(case, rank, found_on)
    if factors is None:
        return 1.0
    return relative_error((case.left.approx @ factors[0]) @ factors[1], whole.astype(np.float64))


def kept_operations(m: int, k: int, n: int, rank: int) -> int:
    """Of the library's method without finding the right factors."""
    width = min(rank + OVERSAMPLING, k, n)
    sketch = 2 * (2 * PASSES + 2) * (m * k + k * n) * width + 2 * k * n * min(rank, k, n)
    return separate_operations(m, k, n, rank) - sketch


# What is measured, by table and column

FRACTIONS = {"0": 0.0, "1/4": 0.25, "1/2": 0.5, "3/4": 0.75, "1": 1.0}


def measure_joint(case: Case, rank: int) -> dict[str, float]:
    m, k, n = case.shape
    storage = rank_of_equal_storage(m, k, n, rank)
    operations = largest_rank(joint_operations, m, k, n, rank)
    ranks = {
        "joint, rank 2r": min(2 * rank, m, n),
        "equal storage": storage,
        "equal operations": operations,
        "both": min(storage, operations),
    }
    return {
        "direct": case.error(),
        "separate": case.error(split(case, rank, rank)),
        **{name: case.error(joint(case, s)) for name, s in ranks.items()},
        "bound, rank 2r": smallest_error(case, 2 * rank),
    }


def measure_split(case: Case, rank: int) -> dict[str, float]:
    found = {
        name: case.error(split(case, round(2 * rank * part), 2 * rank - round(2 * rank * part)))
        for name, part in FRACTIONS.items()
    }
    found["1/2, wide"] = case.error(split(case, rank, rank, 2 * rank + OVERSAMPLING))
    for rule, width in (("free", rank + OVERSAMPLING), ("wide", 2 * rank + OVERSAMPLING)):
        (left, right), correction = chosen_split(case, rank, width)
        found[f"{rule} rule"] = case.error(correction)
        found[f"{rule}: share"] = left / (left + right)
        found[f"{rule}: storage"] = storage_ratio(case, rank, left, right)
    return found


def measure_mean(case: Case, rank: int) -> dict[str, float]:
    found = {"means only": case.error(mean_only(case)), "r": case.error(split(case, rank, rank))}
    for name, more in (("r - 1", rank - 1), ("r", rank)):
        for way in ("beside", "deflated", "basis"):
            found[f"{way}, {name}"] = case.error(mean_first(case, more, way))
    return found


def measure_kept(case: Case, rank: int) -> dict[str, float]:
    ways = ("operand", "other rows", "residual", "none")
    found = {way: case.error(kept(case, rank, way)) for way in ways}
    more = largest_rank(kept_operations, *case.shape, rank)
    found["other rows, equal operations"] = case.error(kept(case, more, "other rows"))
    return found | {f"left by {way}": remaining(case, rank, way) for way in ways[:3]}


MEASUREMENTS = {
    "joint": measure_joint,
    "split": measure_split,
    "mean": measure_mean,
    "kept": measure_kept,
}
COMPARED = {
    "joint": ("separate", ["joint, rank 2r", "equal storage", "equal operations", "both"]),
    "split": ("1/2", ["0", "1/4", "3/4", "1", "1/2, wide", "free rule", "wide rule"]),
    "mean": ("r", [f"{x}, {r}" for r in ("r - 1", "r") for x in ("beside", "deflated", "basis")]),
    "kept": ("operand", ["other rows", "residual", "none", "other rows, equal operations"]),
}
"""By table: the default's column, and those that are held against it."""

Key = tuple[str, str, int]
"""Input, setting, rank."""
Found = dict[Key, dict[str, list[float]]]
"""Values by column, one for each seed."""


# Inputs

Operands = tuple[str, Array, Array, Array]
"""Name, A, as many other rows of its source, B."""


def random_operands(distribution: str, size: int, seed: int) -> Operands:
    """2n rows of one sample are the operand and the rows held out."""
    A, B = sample(distribution, 2 * size, size, size, seed)
    return distribution, A[:size], A[size:], B


def layer_operands(seeds: int) -> Iterator[Operands]:
    """Layers of the packaged ResNet-50; each seed has pictures of its own."""
    model = load_resnet50()
    batches = labelled_pictures().batches(2 * PICTURES, model.preprocessing)
    for _, (batch, _) in zip(range(seeds), batches, strict=False):
        for layer in capture(model, batch):
            if layer.name in LAYERS:
                rows = len(layer.A) // 2
                yield layer.name, layer.A[:rows], layer.A[rows:], layer.B


def held_out_table(rank: int, seeds: int, held_out: tuple[int, ...] = HELD_OUT) -> str:
    """Kept right factors of the layers by the number of pictures on which they were found."""
    model = load_resnet50()
    batch, _ = next(labelled_pictures().batches(len(labelled_pictures()), model.preprocessing))
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for layer in capture(model, batch):
        if layer.name not in LAYERS:
            continue
        by_picture = np.split(layer.A, len(batch))
        for seed in range(seeds):
            mine = range(seed * PICTURES, (seed + 1) * PICTURES)
            others = [rows for i, rows in enumerate(by_picture) if i not in mine]
            own = np.concatenate([by_picture[i] for i in mine])
            for count in held_out:
                case = quantised(own, np.concatenate(others[:count]), layer.B)
                found[layer.name][f"{count} others"].append(
                    case.error(kept(case, rank, "other rows"))
                )
            found[layer.name]["operand"].append(case.error(kept(case, rank, "operand")))
    rows = [[name, *map(cell, columns.values())] for name, columns in found.items()]
    return markdown(["layer", *next(iter(found.values()))], rows)


def all_operands(size: int, seeds: int, layers: bool) -> Iterator[Operands]:
    for distribution in DISTRIBUTIONS:
        for seed in range(seeds):
            yield random_operands(distribution, size, seed)
    if layers:
        yield from layer_operands(seeds)


def measure(
    size: int = SIZE, seeds: int = SEEDS, ranks: tuple[int, ...] = RANKS, layers: bool = True
) -> tuple[dict[str, Found], dict[str, tuple[int, int, int]]]:
    """Every table's values, and the shapes of the inputs."""
    found: dict[str, Found] = {
        table: defaultdict(lambda: defaultdict(list)) for table in MEASUREMENTS
    }
    shapes = {}
    for name, A, other, B in all_operands(size, seeds, layers):
        for setting, options in SETTINGS.items():
            case = quantised(A, other, B, **options)
            shapes[name] = case.shape
            for rank in ranks:
                for table, measured in MEASUREMENTS.items():
                    for column, value in measured(case, rank).items():
                        found[table][name, setting, rank][column].append(value)
    return found, shapes


# Tables


def cell(values: list[float]) -> str:
    """Median, and from least to most where they differ."""
    middle, low, high = (f"{x:.3g}" for x in (np.median(values), min(values), max(values)))
    return middle if low == high else f"{middle} [{low}, {high}]"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def values_table(found: Found, rank: int) -> str:
    """An input and setting a row, a way a column."""
    mine = {key: columns for key, columns in found.items() if key[2] == rank}
    names = list(next(iter(mine.values())))
    rows = [
        [name, setting, *(cell(values) for values in columns.values())]
        for (name, setting, _), columns in mine.items()
    ]
    return markdown(["input", "setting", *names], rows)


def ratios(found: Found, rank: int, column: str, default: str) -> NDArray[np.float64]:
    """Error over the default's on the same data, median of seeds, a number an input and setting."""
    mine = [columns for key, columns in found.items() if key[2] == rank]
    return np.array([np.median(np.divide(ways[column], ways[default])) for ways in mine])


def geometric_mean(x: NDArray[np.float64]) -> float:
    return float(np.exp(np.log(x).mean()))


def summary_table(found: Found, default: str, columns: list[str], ranks: tuple[int, ...]) -> str:
    """Each way's errors over the default's: better or worse is by more than one per cent."""
    rows = []
    for column in columns:
        for rank in ranks:
            x = ratios(found, rank, column, default)
            counts = (x < 0.99).sum(), (abs(x - 1) <= 0.01).sum(), (x > 1.01).sum()
            spread = [f"{value:.3f}" for value in (geometric_mean(x), x.min(), x.max())]
            rows.append([column, str(rank), *map(str, counts), *spread])
    head = [f"against `{default}`", "r", "better", "same", "worse", "mean ratio", "least", "most"]
    return markdown(head, rows)


def regret_table(found: Found, ranks: tuple[int, ...]) -> str:
    """How far equal shares and the two rules are from the best of the five shares."""
    rows = []
    for column in ("1/2", "free rule", "wide rule"):
        for rank in ranks:
            x = np.max([ratios(found, rank, column, part) for part in FRACTIONS], axis=0)
            within = f"{(x <= 1.01).sum()} of {len(x)}"
            rows.append([column, str(rank), within, f"{geometric_mean(x):.3f}", f"{x.max():.3f}"])
    return markdown(["over the best of five", "r", "within 1%", "mean ratio", "most"], rows)


def cost_table(shapes: dict[str, tuple[int, int, int]], ranks: tuple[int, ...]) -> str:
    """Joint ranks of equal cost; what is saved, and could be bought, by keeping right factors."""
    rows = []
    for (m, k, n), names in by_shape(shapes).items():
        for rank in ranks:
            share = kept_operations(m, k, n, rank) / separate_operations(m, k, n, rank)
            equal = [
                rank_of_equal_storage(m, k, n, rank),
                largest_rank(joint_operations, m, k, n, rank),
                f"{share:.2f}",
                largest_rank(kept_operations, m, k, n, rank),
            ]
            rows.append([names, f"{m} x {k} x {n}", str(rank), *map(str, equal)])
    head = ["input", "m x k x n", "r", "joint s, equal storage", "joint s, equal operations"]
    return markdown([*head, "kept: operations", "kept: r of equal operations"], rows)


def by_shape(shapes: dict[str, tuple[int, int, int]]) -> dict[tuple[int, int, int], str]:
    """Names by shape, those of all distributions as one."""
    return {
        shape: "distributions" if name in DISTRIBUTIONS else name for name, shape in shapes.items()
    }


def main() -> None:
    found, shapes = measure()
    print("### Costs\n\n" + cost_table(shapes, RANKS))
    for table, (default, columns) in COMPARED.items():
        print(f"\n### Summary: {table}\n\n" + summary_table(found[table], default, columns, RANKS))
    print("\n### Summary: choosing the shares\n\n" + regret_table(found["split"], RANKS))
    print(f"\n### Right factors by pictures, r = {RANKS[-1]}\n")
    print(held_out_table(RANKS[-1], SEEDS))
    for table, values in found.items():
        for rank in RANKS:
            print(f"\n### Values: {table}, r = {rank}\n\n" + values_table(values, rank))


if __name__ == "__main__":
    main()
