"""Sigma-delta: each element rounded with what the rounding of those before it has lost, order 1.

    q_i = nearest(z_i + u_{i-1}),    u_i = u_{i-1} + z_i - q_i

Errors of neighbours cancel in their sum, so it wins where the other operand is smooth along the
inner dimension, and loses elsewhere. `condense` sums blocks of the codes, for random features.
Cost: one pass along k, element by element.
Source: Shao et al., arXiv 1903.03319; Zhang, Kannan, Cloninger, Saab, arXiv 2106.02614.
"""

from dataclasses import dataclass

from lrqmm._parameters import whole
from lrqmm.products.noiseshaping import NoiseShaped


@dataclass(frozen=True)
class SigmaDelta(NoiseShaped):
    """Feedback of the whole error.

    Parameters
    ----------
    condense : λ, elements that become one number; 1 is none
    """

    condense: int = whole(1, 1)

    @property
    def feedback(self) -> float:
        return 1.0

    @property
    def block(self) -> int:
        return self.condense


METHOD = SigmaDelta(
    "sigma_delta", title="sigma-delta", cites=("shao2019onebit", "zhang2021noiseshaping")
)
