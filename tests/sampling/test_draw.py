"""Drawing codes: truncation, temperature, and rows that gradients pass."""

import pytest
import torch
from torch import Tensor

from mage import rng
from mage.sampling.decode import UNKNOWN, decode, decode_relaxed
from mage.sampling.draw import draw_codes, most_probable, relaxed_codes
from mage.sampling.settings import SamplingConfig

SHARES = torch.tensor([0.05, 0.4, 0.3, 0.15, 0.1])


def many(count: int) -> list[torch.Generator]:
    return [rng.generator(0, "draw", index) for index in range(count)]


def frequencies(codes: Tensor) -> Tensor:
    return torch.bincount(codes.flatten(), minlength=len(SHARES)).double() / codes.numel()


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, 1.0, [0, 1, 2, 3, 4]),
        (2, 1.0, [1, 2]),
        (0, 0.69, [1, 2]),
        (0, 0.71, [1, 2, 3]),
        (0, 0.01, [1]),
        (9, 1.0, [0, 1, 2, 3, 4]),
    ],
)
def test_truncation_keeps_the_most_probable(top_k: int, top_p: float, kept: list[int]) -> None:
    found = most_probable(SHARES.double(), top_k, top_p)
    assert found.nonzero()[:, 0].tolist() == kept
    assert torch.equal(found[kept], SHARES.double()[kept])


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.5, 0), (2.0, 3)])
def test_codes_come_as_often_as_their_probability(relaxed: bool, temperature: float, top_k: int) -> None:
    count = 6000
    places = torch.zeros(count, 1, dtype=torch.int64)
    scores = SHARES.log().expand(count, 1, -1)
    if relaxed:
        rows = relaxed_codes(scores, many(count), places, 1, temperature=temperature, top_k=top_k)
        torch.testing.assert_close(rows.sum(dim=-1), torch.ones(count, 1))
        codes = rows.argmax(dim=-1)
    else:
        codes = draw_codes(scores, rng.uniform_rows(many(count), 1, scores), temperature=temperature, top_k=top_k)
    expected = most_probable((SHARES.log() / temperature).softmax(dim=0).double(), top_k, 1.0)
    torch.testing.assert_close(frequencies(codes), expected / expected.sum(), atol=0.02, rtol=0)


def logits_of(weights: Tensor) -> object:
    def logits(tokens: Tensor, places: Tensor, progress: float) -> Tensor:
        return weights.expand(len(tokens), -1, -1).gather(1, places[..., None].expand(-1, -1, weights.shape[1]))

    return logits


def test_relaxed_decoding_gives_rows_of_a_single_one_and_keeps_what_is_known() -> None:
    weights = torch.randn(6, 5, generator=rng.generator(0, "weights"), requires_grad=True)
    start = torch.full((3, 6), UNKNOWN)
    start[1, :4] = 2
    settings = SamplingConfig(steps=3, choice_temperature=1.0)
    rows = decode_relaxed(start, logits_of(weights), generators=many(3), settings=settings)
    assert rows.shape == (3, 6, 5)
    assert torch.equal(rows.detach().round(), torch.nn.functional.one_hot(rows.argmax(-1), 5).float())
    torch.testing.assert_close(rows.sum(dim=-1), torch.ones(3, 6))
    assert (rows.argmax(-1)[1, :4] == 2).all()
    greedy = SamplingConfig(steps=3, choice_temperature=0.0, token_temperature=0.0)
    codes = decode(start, logits_of(weights), generators=many(3), settings=greedy)
    rows = decode_relaxed(start, logits_of(weights), generators=many(3), settings=greedy)
    assert torch.equal(rows.argmax(-1), codes)


def test_gradients_reach_the_logits_of_the_drawn_codes() -> None:
    weights = torch.zeros(6, 5, requires_grad=True)
    start = torch.full((2, 6), UNKNOWN)
    start[:, 0] = 1
    rows = decode_relaxed(
        start, logits_of(weights), generators=many(2), settings=SamplingConfig(steps=3), softness=0.7
    )  # fmt: skip
    (rows @ torch.arange(5.0)).sum().backward()
    assert weights.grad is not None
    assert (weights.grad[1:].abs().sum(dim=1) > 0).all(), "every drawn position learns"
    assert (weights.grad[0] == 0).all(), "a known one does not"


def test_training_through_samples_moves_them_where_the_loss_wants_them() -> None:
    weights = torch.zeros(4, 5, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.2)
    wanted = torch.tensor([3, 0, 4, 1])
    for step in range(60):
        generators = [rng.generator(step, "train", index) for index in range(16)]
        rows = decode_relaxed(
            torch.full((16, 4), UNKNOWN), logits_of(weights), generators=generators, settings=SamplingConfig(steps=2),
        )  # fmt: skip
        loss = -rows.gather(2, wanted.expand(16, -1)[..., None]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert weights.softmax(dim=1).gather(1, wanted[:, None]).min() > 0.9
