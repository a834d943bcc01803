"""Texts and windows of their tokens."""

from pathlib import Path

import pytest
import torch

from lrqmm.bench.data.text import read_text, windows


@pytest.mark.parametrize(
    ("name", "size", "first"),
    [
        ("wikipedia", 1_837_369, "2007 European Parliament election in Romania\n"),
        ("c4", 327_627, "Restore from larger disk"),
        ("tinystories", 261_061, "One day, a little girl named Lily"),
    ],
)
def test_packaged_texts(name: str, size: int, first: str):
    text = read_text(name)
    assert len(text) == size
    assert text.startswith(first)
    assert "<doc " not in text
    assert "</doc>" not in text
    assert "\n\n" in text or name != "wikipedia"  # lines are kept


def test_text_file_is_read_as_it_is(tmp_path: Path):
    path = tmp_path / "text"
    path.write_text("<doc id=1>\nRomân\n</doc>\n", encoding="utf-8")
    assert read_text(path) == read_text(str(path)) == "<doc id=1>\nRomân\n</doc>\n"


def test_unknown_text(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"source='wikitext' is no text; .*'wikipedia'"):
        read_text("wikitext")
    with pytest.raises(FileNotFoundError, match="UTF-8 file"):
        read_text(tmp_path)


def test_windows_do_not_overlap():
    cut = windows(list(range(10)), length=3, count=3)
    assert cut.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert cut.dtype == torch.int64


@pytest.mark.parametrize(("length", "count"), [(1, 3), (3, 0), (3, 4), (-3, 1)])
def test_windows_that_cannot_be(length: int, count: int):
    with pytest.raises(ValueError, match=f"length={length}, count={count} for 10 tokens"):
        windows(list(range(10)), length, count)


def test_text_that_is_not_utf8_is_named(tmp_path: Path):
    path = tmp_path / "text"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="text cannot be read: 'utf-8' codec"):
        read_text(path)
    path.write_bytes(b"a\r\nb\rc\n")
    assert read_text(path) == "a\r\nb\rc\n"  # line ends too are as they are
