"""Texts, windows, and perplexity where it is known."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from lrqmm.bench.data.text import perplexity, read_text, token_losses, windows

VOCABULARY = 50


class Known(nn.Module):
    """Gives the token's successor (modulo the vocabulary) a logit of its own, the others 0."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(tokens.shape))
        next_token = (tokens + 1) % VOCABULARY
        return self.logit * nn.functional.one_hot(next_token, VOCABULARY).float()


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


def test_losses_of_known_models():
    rising = windows([i % VOCABULARY for i in range(100)], length=20, count=5)
    assert perplexity(Known(0.0), rising) == pytest.approx(VOCABULARY)  # knows nothing
    assert perplexity(Known(100.0), rising) == pytest.approx(1)  # knows every next token
    rising[2, 7] = 0  # neither it (true: 47) nor its successor is foreseen
    losses = token_losses(Known(3.0), rising)
    right = math.log(math.exp(3) + VOCABULARY - 1) - 3
    want = torch.full((5, 19), right)
    want[2, 6:8] += 3
    torch.testing.assert_close(losses, want)
    assert perplexity(Known(3.0), rising) == pytest.approx(math.exp(want.double().mean()))


def test_one_window_at_a_time_without_gradients():
    model = Known(1.0)
    assert not token_losses(model, windows([1] * 12, 4, 3)).requires_grad
    assert model.shapes == [(1, 4)] * 3


def test_text_that_is_not_utf8_is_named(tmp_path: Path):
    path = tmp_path / "text"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="text cannot be read: 'utf-8' codec"):
        read_text(path)
    path.write_bytes(b"a\r\nb\rc\n")
    assert read_text(path) == "a\r\nb\rc\n"  # line ends too are as they are
