"""The prediction head."""

import pytest
import torch
from torch import Tensor

from mage import rng
from mage.nn.heads import TokenHead
from tests.reference import models as reference


@pytest.fixture
def words() -> Tensor:
    return torch.randn(9, 6, generator=rng.generator(0, "words"))


@pytest.fixture
def head() -> TokenHead:
    made = TokenHead(9, 4, 6)
    made.bias.data = torch.randn(9, generator=rng.generator(0, "bias"))
    return made


def test_logits_are_those_of_plain_loops(head: TokenHead, words: Tensor) -> None:
    decoded = torch.randn(2, 3, 4, generator=rng.generator(0))
    found = head(decoded, words, 9)
    assert found.shape == (2, 3, 9)
    weight, bias = head.linear.weight.tolist(), head.linear.bias.tolist()
    for image in range(2):
        for place in range(3):
            expected = [
                reference.token_logit(decoded[image, place].tolist(), weight, bias, word, shift)
                for word, shift in zip(words.tolist(), head.bias.tolist(), strict=True)
            ]
            assert found[image, place].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_fewer_words_are_the_first_ones(head: TokenHead, words: Tensor) -> None:
    decoded = torch.randn(5, 4, generator=rng.generator(0))
    torch.testing.assert_close(head(decoded, words, 3), head(decoded, words, 9)[:, :3])


def test_words_do_not_learn_from_the_head(head: TokenHead, words: Tensor) -> None:
    decoded = torch.randn(5, 4, generator=rng.generator(0)).requires_grad_()
    words.requires_grad_()
    head(decoded, words, 9).square().sum().backward()
    assert words.grad is None
    assert decoded.grad is not None
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_the_norm_has_the_epsilon_of_released_checkpoints(head: TokenHead, words: Tensor) -> None:
    # Where features hardly differ the epsilon decides: 1e-6, as in all other norms, would give larger logits.
    head.linear.weight.data.mul_(0.02)
    head.linear.bias.data.fill_(1.0)
    decoded = torch.randn(1, 4, generator=rng.generator(0))
    weight, bias = head.linear.weight.tolist(), head.linear.bias.tolist()
    expected = reference.token_logit(decoded[0].tolist(), weight, bias, words[2].tolist(), head.bias[2].item())
    assert head(decoded, words, 9)[0, 2].item() == pytest.approx(expected, rel=1e-3)
    head.norm.eps = 1e-6
    assert head(decoded, words, 9)[0, 2].item() != pytest.approx(expected, rel=1e-2)


def test_the_bias_starts_at_zero() -> None:
    assert TokenHead(9, 4, 6).bias.tolist() == [0.0] * 9
