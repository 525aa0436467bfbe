"""The plain baseline computes what the library computes: otherwise a ratio of their times would mean nothing."""

import pytest
import torch
from torch import Tensor

import mage
from mage import rng
from mage.benchmarks import plain
from mage.masking import MaskRatioConfig, random_mask
from mage.models import MAGEConfig
from mage.sampling.decode import UNKNOWN, decode
from mage.sampling.generator import logits_function
from mage.sampling.settings import SamplingConfig
from mage.tokenizers import QuantizerConfig, VQGANConfig


@pytest.fixture(scope="module", params=["vq", "normalized"])
def model(request: pytest.FixtureRequest) -> mage.Mage:
    tokenizer = VQGANConfig(
        image_size=(16, 16), width=8, multipliers=(1, 2), patch_size=2, blocks=1, code_width=6,
        quantizer=QuantizerConfig(kind=request.param, num_codes=20),
    )  # fmt: skip
    network = MAGEConfig(16, 2, 2, decoder_width=12, decoder_depth=2, decoder_heads=3)
    made = mage.build(network, tokenizer=tokenizer, precision="float32")
    torch.manual_seed(0)
    for parameter in made.transformer.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))  # also those that start at zero or one
    return made


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 16, 16, generator=rng.generator(0, "images"))


@torch.no_grad()
def test_tokens_and_pixels(model: mage.Mage, images: Tensor) -> None:
    ids = model.tokenizer.encode(images)
    assert torch.equal(plain.encode(model.tokenizer, images), ids.flatten(1))
    torch.testing.assert_close(plain.decode(model.tokenizer, ids.flatten(1)), model.tokenizer.decode(ids))


def test_loss_and_gradients(model: mage.Mage, images: Tensor) -> None:
    network = model.transformer.requires_grad_(True)
    ids = model.encode(images).flatten(1).clone()
    mask = random_mask(MaskRatioConfig(), len(ids), ids.shape[1], rng.generator(0))
    results = []
    for value in (network.loss(network(ids, mask), ids, mask), plain.loss(network, ids, mask.masked, mask.dropped)):
        network.zero_grad()
        value.backward()
        results.append((value.detach(), [parameter.grad.clone() for parameter in network.parameters()]))
    network.requires_grad_(False)
    torch.testing.assert_close(results[1], results[0])


def test_features(model: mage.Mage, images: Tensor) -> None:
    ids = model.encode(images).flatten(1)
    torch.testing.assert_close(plain.features(model.transformer, ids), model.features(images))


def test_generation_follows_the_same_schedule(model: mage.Mage, monkeypatch: pytest.MonkeyPatch) -> None:
    length = model.transformer.grid[0] * model.transformer.grid[1]
    start = torch.full((2, length), UNKNOWN)
    start[:, :3] = 7
    counts: list[list[int]] = [[], []]
    scores = plain.logits

    def counted(network: object, ids: Tensor, masked: Tensor, dropped: Tensor) -> Tensor:
        counts[0].append(int(masked[0].sum()))
        return scores(model.transformer, ids, masked, dropped)

    monkeypatch.setattr(plain, "logits", counted)
    tokens = plain.generate(model.transformer, start, steps=6, choice_temperature=4.5, generator=rng.generator(0))
    assert (tokens >= 0).all()
    assert (tokens[:, :3] == 7).all()
    decode(
        start, logits_function(model.transformer), generators=[rng.generator(0, row) for row in range(2)],
        settings=SamplingConfig(steps=6),
        on_step=lambda step, grids: counts[1].append(int((grids[0] == UNKNOWN).sum())),
    )  # fmt: skip
    assert counts[0] == counts[1]


@torch.no_grad()
def test_greedy_generation_gives_the_same_tokens(model: mage.Mage, monkeypatch: pytest.MonkeyPatch) -> None:
    length = model.transformer.grid[0] * model.transformer.grid[1]
    start = torch.full((2, length), UNKNOWN)
    monkeypatch.setattr(torch, "multinomial", lambda share, count, generator: share.argmax(dim=-1, keepdim=True))
    tokens = plain.generate(model.transformer, start, steps=6, choice_temperature=0.0, generator=rng.generator(0))
    expected = model.generate_tokens(2, steps=6, choice_temperature=0.0, token_temperature=0.0)
    assert torch.equal(tokens, expected.flatten(1))
