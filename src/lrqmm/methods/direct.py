"""Direct quantised product: C ≈ Ã B̃, nothing won back ("Direct Quant" in arXiv 2409.18772)."""

from lrqmm.products.composition import Preset

METHOD = Preset("direct", cites=("gu2024lrqmm",), usual=True)
