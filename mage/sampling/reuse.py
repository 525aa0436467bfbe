"""Passes that compute only what changed: keys and values of all other positions stay as they were.

From step to step few tokens become known, and in an order that is known beforehand few are about to be decided. The
encoder computes the class position and the tokens that changed; the decoder those, and the positions whose codes are
asked for. Everything else keeps the keys and values of the last pass that computed it, in every block; they are a
little out of date, so every few passes all is computed anew (after ReCAP, Liu et al. 2025, arXiv 2505.19089).

Letters: n grids, l tokens, t = l + 1 positions with the class position first, s positions that are computed, e tokens
that changed, u positions that are asked for, d width, c codes.
"""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Float, Int
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn
from torch.nn import functional

from mage.models.mage import MAGETransformer
from mage.sampling.decode import UNKNOWN, first_places


class KeptBlock:
    """A block of a transformer, and the keys and values of all positions of a batch."""

    def __init__(self, block: nn.Module) -> None:
        assert isinstance(block, Block)
        assert isinstance(block.attn, Attention)
        self._block, self._attention = block, block.attn
        self._kept: Tensor | None = None

    def __call__(
        self, x: Float[Tensor, "n s d"], rows: Int[Tensor, " ns"] | None, positions: int
    ) -> Float[Tensor, "n s d"]:
        """Outputs of the computed positions, which attend to all `positions`.

        rows: where each of them stands among the n t positions of the batch; None: x is all of them, in order.
        """
        block, attention = self._block, self._attention
        count, computed, width = x.shape
        heads = attention.num_heads
        queries, keys_values = attention.qkv(block.norm1(x)).split([width, 2 * width], dim=-1)
        if rows is None:
            self._kept = keys_values
        else:
            assert self._kept is not None
            self._kept.view(count * positions, -1).index_copy_(0, rows, keys_values.reshape(-1, 2 * width))
        keys, values = self._kept.view(count, positions, 2, heads, -1).permute(2, 0, 3, 1, 4)
        queries = queries.view(count, computed, heads, -1).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).reshape(x.shape)
        x = x + block.ls1(attention.proj(mixed))
        out: Tensor = x + block.ls2(block.mlp(block.norm2(x)))
        return out


class ReusedPasses:
    """The network as a sampler wants it (`decode.LogitsFn`), for one batch of grids."""

    def __init__(
        self,
        transformer: MAGETransformer,
        complete_at: Callable[[float], bool],
        classes: Int[Tensor, " n"] | None = None,
    ) -> None:
        """complete_at: whether the pass of the step that ends at a progress computes all; the first does.

        classes: one per grid, -1 = none.
        """
        self._network, self._complete_at, self._classes = transformer, complete_at, classes
        decoder: Iterable[nn.Module] = transformer.decoder_blocks if transformer.config.decoder_depth else ()
        self._encoder = [KeptBlock(block) for block in transformer.encoder.blocks]
        self._decoder = [KeptBlock(block) for block in decoder]
        self._tokens: Tensor | None = None

    @torch.inference_mode()
    def __call__(
        self, tokens: Int[Tensor, "n l"], places: Int[Tensor, "n u"], progress: float
    ) -> Float[Tensor, "n u c"]:
        """Scores of the codes at `places`."""
        before, self._tokens = self._tokens, tokens
        if before is None or self._complete_at(progress):
            return self._whole(tokens, places)
        differs = tokens != before
        counts: list[int] = differs.sum(dim=1).tolist()
        changed = first_places(differs, counts) if max(counts) else places[:, :0]
        return self._partial(tokens, changed, differs.gather(1, changed), places)

    def _whole(self, tokens: Int[Tensor, "n l"], places: Int[Tensor, "n u"]) -> Float[Tensor, "n u c"]:
        """All positions."""
        network, length = self._network, tokens.shape[1]
        latent = self._encode(tokens, None, length)
        if not self._decoder:
            output = latent[:, 1:]
        else:
            embedded = network.decoder_embed(latent)
            filled = torch.where((tokens == UNKNOWN)[..., None], embedded[:, :1], embedded[:, 1:])
            x = torch.cat([embedded[:, :1], filled], dim=1) + network.decoder_position
            output = self._decode(x, None, length)[:, 1:]
        chosen = output.gather(1, places[..., None].expand(-1, -1, output.shape[2]))
        return network.word_logits(chosen, network.vocabulary.num_codes)

    def _partial(
        self,
        tokens: Int[Tensor, "n l"],
        changed: Int[Tensor, "n e"],
        counts: Bool[Tensor, "n e"],
        places: Int[Tensor, "n u"],
    ) -> Float[Tensor, "n u c"]:
        """The class position, the tokens that changed, and the places that are asked for.

        A grid with fewer of either than another has other positions behind them (`first_places`). The class position
        stands in for these, so that what is kept of them does not depend on the batch. counts: which are no such.
        """
        network, length, asked = self._network, tokens.shape[1], places.shape[1]
        wanted = tokens.gather(1, places) == UNKNOWN
        asked_positions = torch.where(wanted, places + 1, 0)
        changed_positions = functional.pad(torch.where(counts, changed + 1, 0), (1, 0))
        if not self._decoder:
            latent = self._encode(tokens, torch.cat([changed_positions, asked_positions], dim=1), length)
            return network.word_logits(latent[:, -asked:], network.vocabulary.num_codes)
        embedded = network.decoder_embed(self._encode(tokens, changed_positions, length))
        fill = embedded[:, :1]
        known = functional.pad(counts & (tokens.gather(1, changed) != UNKNOWN), (1, 0))
        x = torch.cat([torch.where(known[..., None], embedded, fill), fill.expand(-1, asked, -1)], dim=1)
        positions = torch.cat([changed_positions, asked_positions], dim=1)
        decoded = self._decode(x + network.decoder_position[0][positions], positions, length)[:, -asked:]
        return network.word_logits(decoded, network.vocabulary.num_codes)

    def _encode(
        self, tokens: Int[Tensor, "n l"], positions: Int[Tensor, "n s"] | None, length: int
    ) -> Float[Tensor, "n s d"]:
        """The encoder's output, at all positions or at these."""
        encoder = self._network.encoder
        classes = self._classes if self._network.config.class_input == "encoder" else None
        words = tokens.masked_fill(tokens == UNKNOWN, self._network.vocabulary.mask_id)
        words = torch.cat([encoder.class_column(tokens, classes), words], dim=1)
        x = encoder.embedding(words if positions is None else words.gather(1, positions), positions)
        rows = None if positions is None else _rows(positions, length)
        for block in self._encoder:
            x = block(x, rows, length + 1)
        assert encoder.norm is not None
        latent: Tensor = encoder.norm(x)
        return latent

    def _decode(
        self, x: Float[Tensor, "n s d"], positions: Int[Tensor, "n s"] | None, length: int
    ) -> Float[Tensor, "n s d"]:
        network, rows = self._network, None if positions is None else _rows(positions, length)
        x = x + network.class_vectors(len(x), self._classes, x.device)
        for block in self._decoder:
            x = block(x, rows, length + 1)
        decoded: Tensor = network.decoder_norm(x)
        return decoded


def _rows(positions: Int[Tensor, "n s"], length: int) -> Int[Tensor, " ns"]:
    """Where positions stand among those of the whole batch, grid after grid."""
    first = torch.arange(len(positions), device=positions.device)[:, None] * (length + 1)
    return (positions + first).flatten()
