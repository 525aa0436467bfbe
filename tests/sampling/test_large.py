"""Windows over larger grids."""

import pytest
import torch
from torch import Tensor

from mage import rng
from mage.sampling import large
from mage.sampling.decode import UNKNOWN
from mage.sampling.large import decode_large, encode_large, fill_large, pad_to_windows, window_starts, windows

WINDOW, CELL = (4, 4), (2, 2)


def test_windows_cover_everything_and_overlap_by_half() -> None:
    assert window_starts(4, 4) == [0]
    assert window_starts(9, 4) == [0, 2, 4, 5]
    assert window_starts(8, 4) == [0, 2, 4]
    assert (0, 0) in windows((4, 7), WINDOW)
    with pytest.raises(ValueError, match="fewer than the 4"):
        window_starts(3, 4)
    with pytest.raises(ValueError, match="needs a grid of rows and columns, not one of 16 tokens"):
        windows((4, 7), (16,))


def test_padding_repeats_the_border() -> None:
    image = torch.rand(3, 9, 6, generator=rng.generator(0))
    padded = pad_to_windows(image, WINDOW, CELL)
    assert padded.shape == (3, 10, 8)
    assert torch.equal(padded[:, :9, :6], image)
    assert torch.equal(padded[:, 9, :6], image[:, 8])
    whole = torch.rand(3, 8, 10)
    assert pad_to_windows(whole, WINDOW, CELL) is whole


def encode(images: Tensor) -> Tensor:
    """A token is the brightness of its cell, up to 255."""
    return (images.mean(dim=1).unfold(1, 2, 2).unfold(2, 2, 2).mean(dim=(3, 4)) * 255).round().long()


def decode(tokens: Tensor) -> Tensor:
    return (tokens.float() / 255).repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None].expand(-1, 3, -1, -1)


def test_a_tokenizer_without_memory_gives_the_same_in_windows() -> None:
    image = torch.rand(3, 14, 22, generator=rng.generator(0))
    tokens = encode_large(image, encode, WINDOW, CELL)
    assert torch.equal(tokens, encode(image[None])[0])
    torch.testing.assert_close(decode_large(tokens, decode, WINDOW, CELL), decode(tokens[None])[0])


def test_tokens_are_read_where_they_lie_in_the_middle() -> None:
    """A tokenizer that sees how far a token is from its window's border: no token is read at a border inside."""

    def distance(images: Tensor) -> Tensor:
        place = torch.arange(4)
        border = torch.minimum(place, 3 - place)
        return torch.minimum(border[:, None], border[None]).expand(len(images), -1, -1)

    tokens = encode_large(torch.zeros(3, 16, 16), distance, WINDOW, CELL)
    assert (tokens[1:-1, 1:-1] == 1).all()
    assert (tokens[0] == 0).all()


def test_filling_keeps_what_is_known_and_sees_what_was_filled() -> None:
    tokens = torch.full((4, 12), UNKNOWN)
    tokens[:, 5:7] = 7
    seen: list[bool] = []

    def fill(part: Tensor, number: int) -> Tensor:
        seen.append(bool((part != UNKNOWN).any()))
        return torch.where(part == UNKNOWN, 100 + number, part)

    filled = fill_large(tokens, fill, WINDOW)
    assert (filled[:, 5:7] == 7).all()
    assert (filled >= 0).all()
    assert all(seen), "growing from what is known, a window always has something to go by"
    assert (tokens == UNKNOWN).any(), "the input is left alone"
    nothing = fill_large(filled, fill, WINDOW)
    assert torch.equal(nothing, filled)


def test_windows_are_filled_by_the_number_of_their_unknown_tokens_of_which_only_neighbours_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = torch.where(torch.rand(23, 18, generator=rng.generator(0)) < 0.3, UNKNOWN, 5)
    order: list[Tensor] = []

    def fill(part: Tensor, number: int) -> Tensor:
        order.append(part)
        return torch.where(part == UNKNOWN, 100 + number, part)

    expected, plain, places = tokens.clone(), [], windows((23, 18), WINDOW)
    for number in range(len(places)):
        parts = [expected[row : row + 4, column : column + 4] for row, column in places]
        todo = [part for part in parts if (part == UNKNOWN).any()]
        if not todo:
            break
        best = min(todo, key=lambda part: int((part == UNKNOWN).sum()))
        plain.append(best.clone())
        best[best == UNKNOWN] = 100 + number
    counted: list[int] = []
    counts = large._counts
    monkeypatch.setattr(
        large, "_counts", lambda *given: (counted.append(len(given[1]) * len(given[2])), counts(*given))[1]
    )
    assert torch.equal(fill_large(tokens, fill, WINDOW), expected)
    assert all(torch.equal(*pair) for pair in zip(order, plain, strict=True))
    assert counted[0] == len(places)
    assert max(counted[1:]) <= 16
