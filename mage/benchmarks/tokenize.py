"""Tokenizing of images, as for a token cache."""

import torch

from mage.benchmarks import plain
from mage.benchmarks.work import OURS, Bench, Work


def tokenize(bench: Bench) -> list[Work]:
    """Encode a batch."""

    @torch.inference_mode()
    def plainly() -> object:
        return plain.encode(bench.plain_tokenizer, bench.images)

    def ours() -> object:
        return bench.model.encode(bench.images, batch_size=bench.batch)

    return [Work("tokenize", bench.batch, {OURS: ours, "plain": plainly}, ceiling="conv3x3")]
