"""One-bit precoding for a large antenna array: what users receive, H X, where X is sent in one bit.

A uniform line of 256 antennas serves 8 users in directions of ±30 degrees; row θ of H is
e^(-2πi (d/λ) j sin θ) over the antennas j, so neighbours' entries are alike where antennas are
near. X is the zero-forcing precoder's answer to 64 random symbols of 16-QAM, each scaled to a peak
of 1. A case is d/λ, the antennas' distance in wavelengths. Complex numbers are laid out as real
ones: [Re H, -Im H; Im H, Re H] times [Re X; Im X]. There is no score beside the relative error,
which is what users receive.
Source: Shao et al., arXiv 1903.03319. There the directions' noise is shaped by sigma-delta.
"""

import numpy as np

from lrqmm.bench.sources import Float32, Workload

ANTENNAS, USERS, SYMBOLS = 256, 8, 64
WIDEST = np.deg2rad(30)
DISTANCES = {"sixteenth": 1 / 16, "eighth": 1 / 8, "quarter": 1 / 4, "half": 1 / 2}


def make(case: str, seed: int) -> tuple[Float32, Float32]:
    """H (16 x 512) and X (512 x 64), real; antennas run along the inner dimension."""
    chances = np.random.Generator(np.random.Philox(seed))
    angles = (
        np.linspace(-WIDEST, WIDEST, USERS) + chances.uniform(-1, 1, USERS) * WIDEST / USERS / 2
    )
    phases = 2 * np.pi * DISTANCES[case] * np.arange(ANTENNAS)[None, :] * np.sin(angles)[:, None]
    H = np.exp(-1j * phases)
    levels = np.array([-3.0, -1.0, 1.0, 3.0])
    symbols = chances.choice(levels, (2, USERS, SYMBOLS))
    X = np.linalg.pinv(H) @ (symbols[0] + 1j * symbols[1])
    X = X / np.maximum(np.abs(X.real), np.abs(X.imag)).max(axis=0)
    real = np.block([[H.real, -H.imag], [H.imag, H.real]])
    return real.astype(np.float32), np.vstack([X.real, X.imag]).astype(np.float32)


SOURCE = Workload(
    name="precoding",
    title="one-bit precoding",
    cases=dict.fromkeys(DISTANCES, (2 * USERS, 2 * ANTENNAS, SYMBOLS)),
    matrices=make,
)
