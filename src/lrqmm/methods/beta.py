"""Beta encoding: as sigma-delta, the state multiplied by β > 1 at each step, in blocks.

    q_i = nearest(z_i + β u_{i-1}),    u_i = z_i + β u_{i-1} - q_i,    v = (β⁻¹, ..., β^-λ)

The error of ⟨v, block⟩ is β^-λ u_λ. That the state stays bounded costs range: |z| ≤ 2^b - β in
units of the alphabet's step, so one bit and β near 2 leave no signal.
Cost: one pass along k, element by element.
Source: Zhang, Kannan, Cloninger, Saab, arXiv 2106.02614.
"""

from dataclasses import dataclass

from lrqmm._parameters import number
from lrqmm.methods.sigma_delta import SigmaDelta


@dataclass(frozen=True)
class Beta(SigmaDelta):
    """Feedback of more than the whole error.

    Parameters
    ----------
    condense : λ, elements that become one number; at 1 there is nothing to feed back
    beta : β, 1 to 1.9
    """

    bits: int = 2
    beta: float = number(1.2, 1.0, 1.9)

    @property
    def feedback(self) -> float:
        return self.beta


METHOD = Beta("beta", title="beta encoding", cites=("zhang2021noiseshaping",))
