"""Tokenizing of images, as for a token cache, and decoding of tokens."""

import torch

from mage.benchmarks import plain
from mage.benchmarks.work import Bench, Work, own_ways


def tokenize(bench: Bench) -> list[Work]:
    """Encode a batch."""

    @torch.inference_mode()
    def plainly() -> object:
        return plain.encode(bench.plain_tokenizer, bench.images)

    ways = own_ways(bench, lambda model: model.encode(bench.images, batch_size=bench.batch))
    return [Work("tokenize", bench.batch, {**ways, "plain": plainly}, ceiling="conv3x3")]


def detokenize(bench: Bench) -> list[Work]:
    """Decode a batch."""
    ids = bench.tokens()
    grids = ids.view(-1, *bench.plain_tokenizer.grid)

    @torch.inference_mode()
    def plainly() -> object:
        return plain.decode(bench.plain_tokenizer, ids)

    ways = own_ways(bench, lambda model: model.decode_tokens(grids, batch_size=bench.batch))
    return [Work("detokenize", bench.batch, {**ways, "plain": plainly}, ceiling="conv3x3")]
