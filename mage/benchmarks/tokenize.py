"""Tokenizing of images, as for a token cache, and decoding of tokens."""

from collections.abc import Callable

import torch

from mage.benchmarks import plain
from mage.benchmarks.work import OURS, Bench, Work
from mage.pipeline import Mage


def tokenize(bench: Bench) -> list[Work]:
    """Encode a batch."""

    @torch.inference_mode()
    def plainly() -> object:
        return plain.encode(bench.plain_tokenizer, bench.images)

    ways = _ways(bench, lambda model: model.encode(bench.images, batch_size=bench.batch))
    return [Work("tokenize", bench.batch, {**ways, "plain": plainly}, ceiling="conv3x3")]


def detokenize(bench: Bench) -> list[Work]:
    """Decode a batch."""
    ids = bench.tokens()
    grids = ids.view(-1, *bench.plain_tokenizer.grid)

    @torch.inference_mode()
    def plainly() -> object:
        return plain.decode(bench.plain_tokenizer, ids)

    ways = _ways(bench, lambda model: model.decode_tokens(grids, batch_size=bench.batch))
    return [Work("detokenize", bench.batch, {**ways, "plain": plainly}, ceiling="conv3x3")]


def _ways(bench: Bench, job: Callable[[Mage], object]) -> dict[str, Callable[[], object]]:
    """Ours; on a GPU also as CUDA graphs."""
    ways: dict[str, Callable[[], object]] = {OURS: lambda: job(bench.model)}
    if bench.device().type == "cuda":
        model = bench.model
        replayed = Mage.of(model.parts, precision=model.precision, device=model.device, graphs=True)
        ways[f"{OURS}_graphs"] = lambda: job(replayed)
    return ways
