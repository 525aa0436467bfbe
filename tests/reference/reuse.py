"""Passes with kept keys and values, one grid and one position at a time."""

import math

import torch
from torch import Tensor

from mage.models import MAGETransformer
from mage.sampling.decode import UNKNOWN


class LoopedPasses:
    """One grid; position 0 is the class."""

    def __init__(
        self,
        network: MAGETransformer,
        every: int,
        wanted: int | None,
        encoder_keep: float = 1.0,
        noise: Tensor | None = None,
    ) -> None:
        """noise: one number per token; of the unknown tokens, those with the smallest are dropped."""
        self.encoder_keep, self.noise = encoder_keep, noise
        self.network, self.every, self.wanted = network, every, wanted
        blocks = [*network.encoder.blocks, *(network.decoder_blocks if network.config.decoder_depth else [])]
        self.kept: dict[int, dict[int, tuple[Tensor, Tensor]]] = {id(block): {} for block in blocks}
        self.count, self.before = 0, [0]

    def __call__(self, tokens: list[int], asked: list[int]) -> Tensor:
        everything = self.count % self.every == 0
        changed = [p for p, token in enumerate(tokens) if everything or token != self.before[p]]
        self.count, self.before = self.count + 1, tokens
        network, decoder = self.network, self.network.config.decoder_depth > 0
        seen = [0, *(p + 1 for p in changed)]
        if everything and self.encoder_keep < 1:
            assert self.noise is not None
            unknown = sorted((float(self.noise[p]), p) for p, token in enumerate(tokens) if token == UNKNOWN)
            most = len(tokens) - math.ceil(self.encoder_keep * len(tokens))
            dropped = {p for _, p in unknown[:most]}
            seen = [0, *(p + 1 for p in changed if p not in dropped)]
            for block in network.encoder.blocks:
                self.kept[id(block)].clear()
        if not decoder and not everything:
            seen += [p + 1 for p in asked]
        latent = self._encode(tokens, seen)
        if not decoder:
            return torch.stack([self._scores(latent[p + 1]) for p in asked])
        embedded = {p: network.decoder_embed(x) for p, x in latent.items()}
        rows = {0: embedded[0]}
        for p in changed:
            rows[p + 1] = embedded[0] if tokens[p] == UNKNOWN else embedded[p + 1]  # dropped ones are unknown
        rows |= {p + 1: embedded[0] for p in asked}
        rows = {p: x + network.decoder_position[0, p] for p, x in rows.items()}
        if network.config.num_classes and network.config.class_input == "decoder":
            number = network.config.num_classes if self.wanted in (None, -1) else self.wanted
            rows = {p: x + network.class_embedding.weight[number] for p, x in rows.items()}
        for block in network.decoder_blocks:
            rows = self._block(block, rows)
        return torch.stack([self._scores(network.decoder_norm(rows[p + 1])) for p in asked])

    def _encode(self, tokens: list[int], seen: list[int]) -> dict[int, Tensor]:
        encoder, vocabulary = self.network.encoder, self.network.vocabulary
        rows = {}
        for p in seen:
            if p == 0:
                told = self.network.config.class_input == "encoder" and self.wanted not in (None, -1)
                word = vocabulary.num_codes + self.wanted if told else vocabulary.null_class_id  # type: ignore[operator]
            else:
                word = vocabulary.mask_id if tokens[p - 1] == UNKNOWN else tokens[p - 1]
            x = encoder.embedding.word.weight[word] + encoder.embedding.position.weight[p]
            rows[p] = encoder.embedding.norm(x)
        for block in encoder.blocks:
            rows = self._block(block, rows)
        return {p: encoder.norm(x) for p, x in rows.items()}  # type: ignore[misc]

    def _block(self, block: torch.nn.Module, rows: dict[int, Tensor]) -> dict[int, Tensor]:
        attention, kept = block.attn, self.kept[id(block)]
        heads, width = attention.num_heads, next(iter(rows.values())).shape[0]
        queries = {}
        for p, x in rows.items():
            queries[p], *kept_of_position = attention.qkv(block.norm1(x)).split(width)
            kept[p] = (kept_of_position[0], kept_of_position[1])
        result = {}
        for p, x in rows.items():
            parts = []
            for head in range(heads):
                part = slice(head * width // heads, (head + 1) * width // heads)
                order = sorted(kept)
                scores = torch.stack([queries[p][part] @ kept[q][0][part] for q in order])
                weights = (scores / (width // heads) ** 0.5).softmax(dim=0)
                parts.append(sum(weight * kept[q][1][part] for weight, q in zip(weights, order, strict=True)))
            y = x + attention.proj(torch.cat(parts))  # type: ignore[arg-type]
            result[p] = y + block.mlp(block.norm2(y))
        return result

    def _scores(self, x: Tensor) -> Tensor:
        return self.network.word_logits(x, self.network.vocabulary.num_codes)
