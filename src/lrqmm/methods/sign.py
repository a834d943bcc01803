"""Memoryless odd levels; at one bit, the sign of each element.

    C ≈ g S_A S_Bᵀ,    S = sign(X) at one bit

The honest baseline of one-bit methods: with the right gain g, which is not that of the scales. For
random Fourier features it is π²/16 of the naive one.
Source: the memoryless scalar quantiser of Zhang, Kannan, Cloninger, Saab,
arXiv 2106.02614; gain: this project.
"""

from lrqmm.products.noiseshaping import NoiseShaped


class Sign(NoiseShaped):
    """Every element for itself."""

    @property
    def feedback(self) -> float:
        return 0.0


METHOD = Sign(
    "sign",
    title="memoryless (1 bit: sign)",
    short="sign",
    cites=("zhang2021noiseshaping", "lrqmm_bench"),
)
