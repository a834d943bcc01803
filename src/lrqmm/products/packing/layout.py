"""How packed codes lie in memory; `lrqmm.products.packing` has the format."""

LANES = 8
WIDTH = 64
BLOCK = LANES * WIDTH


def packed_length(k: int, bits: int) -> int:
    """Bytes that k codes of a row take: those of the next multiple of eight.

    Parameters
    ----------
    k : codes of a row
    bits : of a code, 1 to 8

    Examples
    --------
    >>> from lrqmm.products.packing import packed_length
    >>> packed_length(20, 3)
    9
    """
    return bits * -(-k // LANES)
