"""Generation and editing of images, including decoding to pixels."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from mage import rng
from mage.benchmarks import plain
from mage.benchmarks.work import OURS, Bench, Work, own_ways
from mage.pipeline import Mage

ENCODER_KEEP = 0.5
REUSE = 4


def generate(bench: Bench) -> list[Work]:
    """Generate a batch: with the paper's sampler, with an encoder that sees half of the tokens, with reused passes."""

    def plainly() -> object:
        return _plain(bench, torch.full((bench.batch, _length(bench)), -1, device=bench.device()))

    def ours(model: Mage, **sampling: Any) -> object:
        return model.generate(
            bench.batch, steps=bench.steps, choice_temperature=6.0, batch_size=bench.batch, **sampling
        )

    ways: dict[str, Callable[[], object]] = {
        **own_ways(bench, ours),
        "ours_encoder_keep": partial(ours, bench.model, encoder_keep=ENCODER_KEEP),
        "ours_reuse": partial(ours, bench.model, reuse=REUSE),
        "ours_reuse_keep": partial(ours, bench.model, reuse=REUSE, encoder_keep=ENCODER_KEEP),
        "plain": plainly,
    }
    return [Work("generate", bench.batch, ways)]


def latency(bench: Bench) -> list[Work]:
    """One image after a request for one: the paper's sampler, pixels included."""

    def ours(model: Mage) -> object:
        return model.generate(1, steps=bench.steps, choice_temperature=6.0)

    def plainly() -> object:
        return _plain(bench, torch.full((1, _length(bench)), -1, device=bench.device()))

    return [Work("latency", 1, {**own_ways(bench, ours), "plain": plainly})]


def edit(bench: Bench) -> list[Work]:
    """Redraw the middle half of each image."""
    height, width = bench.model.image_size
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[:, width // 4 : width - width // 4] = True
    rows, columns = bench.model.require_tokenizer().grid
    hidden = torch.zeros(rows, columns, dtype=torch.bool, device=bench.device())
    hidden[:, columns // 4 : columns - columns // 4] = True

    def plainly() -> object:
        with torch.no_grad():
            tokens = plain.encode(bench.plain_tokenizer, bench.images)
        return _plain(bench, tokens.masked_fill(hidden.flatten(), -1))

    def ours() -> object:
        return bench.model.edit(bench.images, mask, steps=bench.steps, choice_temperature=6.0, batch_size=bench.batch)

    return [Work("edit", bench.batch, {OURS: ours, "plain": plainly})]


@torch.no_grad()
def _plain(bench: Bench, start: torch.Tensor) -> object:
    random = torch.Generator(start.device).manual_seed(rng.stream_seed(0, "plain"))
    tokens = plain.generate(bench.plain_network, start, steps=bench.steps, choice_temperature=6.0, generator=random)
    return plain.decode(bench.plain_tokenizer, tokens)


def _length(bench: Bench) -> int:
    rows, columns = bench.model.require_tokenizer().grid
    return int(rows * columns)
