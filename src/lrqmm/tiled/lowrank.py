"""Low-rank parts L = U Vᵀ of the residual of an operand on disk, from passes over its vectors.

    lrqmm        V = P, U = R P       P: leading left singular vectors of Rᵀ Ω
    mean_fix     V = P, U = R P       P: the vector of 1 / sqrt(k)
    lrqmm_aware  U = Q, V = RᵀQ       Q: leading left singular vectors of R Z Ω, Z = B or Ãᵀ

Ω is random with r + oversampling columns, and the sketch is cut to r columns as it is, which saves
a pass. R P takes only the strip of R that is at hand, so lrqmm reads each operand once before the
sweep. Two sketches of one pass (Tropp, Yurtsever, Udell, Cevher 2017, arXiv 1609.00048) would give
L without the second look at R, but with noise as large as R where R has a flat spectrum, which the
residual of rounding has. For a sketch 'ones+...' the first column of lrqmm's P is 1 / sqrt(k): it
catches the mean of every vector of R, and rank 1 is mean_fix.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from lrqmm.products.composition import Composition
from lrqmm.products.lowrank import LEFT, RIGHT, LowRank
from lrqmm.products.rsvd import drawn
from lrqmm.tiled.vectors import Floats, Vectors

Part = Callable[[Floats], Floats]
Rows = Callable[[slice], Floats]


@dataclass(frozen=True)
class LowRankPart:
    """L = U Vᵀ of the residual of some vectors: V (k x r); U (count x r), None for U = R V."""

    V: Floats
    U: Floats | None = None

    def of(self, index: slice, residual: Floats) -> Floats:
        """The rows of U of some vectors, of which `residual` is R."""
        return residual @ self.V if self.U is None else self.U[index]


def _transposed_times(X: Vectors, part: Part, rows: Rows, width: int) -> Floats:
    """part(X)ᵀ H, (k, w): one pass; `rows` gives the rows of H, which are asked for in order."""
    S = np.zeros((X.X.shape[1], width), np.float32)
    for i, x in X.blocks():
        S += part(x).T @ rows(i)
    return S


def _drawn(width: int, sketch: str, seed: tuple[int, int]) -> Rows:
    """Rows of a test matrix, as in `rsvd.sketch_matrix`, drawn in order and never held at once."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    return lambda index: drawn(generator, (index.stop - index.start, width), sketch)


def _leading(Y: Floats, rank: int) -> Floats:
    """The leading left singular vectors of a sketch."""
    U = torch.linalg.svd(torch.from_numpy(Y), full_matrices=False)[0]
    leading: Floats = U[:, :rank].contiguous().numpy()  # a copy: the rest of U can go
    return leading


def _lrqmm_part(X: Vectors, rank: int, c: LowRank, side: int) -> LowRankPart:
    """R ≈ (R P) Pᵀ: one pass over X, and none where the mean is all of P."""
    count, k = X.X.shape
    ones = c.sketch.startswith("ones") and rank < count  # else P spans all of R without the mean
    mean = np.full((k, int(ones)), k**-0.5, np.float32)
    if rank == mean.shape[1]:
        return LowRankPart(mean)
    width = min(rank + c.oversampling, count, k)
    omega = _drawn(width, c.sketch.removeprefix("ones+"), (c.seed, side))
    S = _transposed_times(X, X.residual, omega, width)
    S -= mean @ (mean.T @ S)
    return LowRankPart(np.concatenate([mean, _leading(S, rank - mean.shape[1])], axis=1))


def _aware_part(
    X: Vectors, rank: int, Z: Vectors, part: Part, c: LowRank, side: int
) -> LowRankPart:
    """R ≈ Q QᵀR with Q from R (part(Z)ᵀ Ω): two passes over X, one over Z."""
    (count, k), others = X.X.shape, Z.X.shape[0]
    width = min(rank + c.oversampling, count, k, others)
    G = _transposed_times(Z, part, _drawn(width, c.sketch, (c.seed, side)), width)
    Y = np.empty((count, width), np.float32)
    for i, x in X.blocks():
        Y[i] = X.residual(x) @ G
    Q = _leading(Y, rank)
    return LowRankPart(_transposed_times(X, X.residual, Q.__getitem__, Q.shape[1]), Q)


def low_rank_parts(
    composition: Composition, A: Vectors, B: Vectors
) -> tuple[LowRankPart, LowRankPart]:
    """L_A and L_Bᵀ; of rank 0 where there is none."""
    (m, k), n = A.X.shape, B.X.shape[0]
    c = composition.compensator
    if c.span == "means":
        mean = LowRankPart(np.full((k, 1), k**-0.5, np.float32))
        return mean, mean
    none = LowRankPart(np.empty((k, 0), np.float32))
    if not isinstance(c, LowRank):
        return none, none
    left, right = c.ranks(m, k, n)
    if c.span == "product":
        L_A = _aware_part(A, left, B, B.exact, c, LEFT) if left else none
        L_B = _aware_part(B, right, A, A.approx, c, RIGHT) if right else none
    else:
        L_A = _lrqmm_part(A, left, c, LEFT) if left else none
        L_B = _lrqmm_part(B, right, c, RIGHT) if right else none
    return L_A, L_B
