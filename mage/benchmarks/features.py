"""Images to feature vectors."""

import torch

from mage.benchmarks import plain
from mage.benchmarks.work import OURS, Bench, Work


def features(bench: Bench) -> list[Work]:
    """Tokenize a batch and compute its features."""

    @torch.inference_mode()
    def plainly() -> object:
        return plain.features(bench.plain_network, plain.encode(bench.plain_tokenizer, bench.images))

    def ours() -> object:
        return bench.model.features(bench.images, batch_size=bench.batch)

    return [Work("features", bench.batch, {OURS: ours, "plain": plainly})]
