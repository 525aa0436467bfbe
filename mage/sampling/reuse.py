"""Passes that compute only what changed: keys and values of all other positions stay as they were.

From step to step few tokens become known, and in an order that is known beforehand few are about to be decided. The
encoder computes the class position and the tokens that changed; the decoder those, and the positions whose codes are
asked for. Everything else keeps the keys and values of the last pass that computed it, in every block; they are a
little out of date, so every few passes all is computed anew (after ReCAP, Liu et al. 2025, arXiv 2505.19089). If the
encoder sees a share of the unknown tokens only, it is the same ones from one such pass to the next.

Letters: n grids, l tokens, t = l + 1 positions with the class position first, s positions that are computed, e tokens
that changed, u positions that are asked for, d width, c codes.
"""

import math
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
        self,
        x: Float[Tensor, "n s d"],
        rows: Int[Tensor, " ns"] | None,
        positions: int,
        *,
        fresh: bool,
        attended: Bool[Tensor, "n k"] | None = None,
    ) -> Float[Tensor, "n s d"]:
        """Outputs of the computed positions.

        rows: where each of them stands among the n t positions of the batch, t = `positions`; None: x is all of them,
        in order. fresh: they attend to one another and all else is forgotten; otherwise they attend to all t positions.
        attended: those, of the k that they would attend to, that count; None: all.
        """
        block, attention = self._block, self._attention
        count, computed, width = x.shape
        heads = attention.num_heads
        queries, keys_values = attention.qkv(block.norm1(x)).split([width, 2 * width], dim=-1)
        if rows is None:
            self._kept = seen = keys_values
        else:
            if fresh:
                self._kept = keys_values.new_zeros(count, positions, 2 * width)
            assert self._kept is not None
            self._kept.view(count * positions, -1).index_copy_(0, rows, keys_values.reshape(-1, 2 * width))
            seen = keys_values if fresh else self._kept
        keys, values = seen.reshape(count, -1, 2, heads, width // heads).permute(2, 0, 3, 1, 4)
        queries = queries.view(count, computed, heads, -1).transpose(1, 2)
        mask = None if attended is None else attended[:, None, None]
        mixed = functional.scaled_dot_product_attention(queries, keys, values, mask).transpose(1, 2).reshape(x.shape)
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
        *,
        encoder_keep: float = 1.0,
        noise: Callable[[], Tensor] | None = None,
    ) -> None:
        """complete_at: whether the pass of the step that ends at a progress computes all; the first does.

        classes: one per grid, -1 = none. encoder_keep, noise: as in `generator.logits_function`, drawn anew by each
        complete pass. Raises ValueError if a network without a decoder is to keep fewer than all.
        """
        if encoder_keep < 1 and not transformer.config.decoder_depth:
            raise ValueError("a network without a decoder must see every position: encoder_keep must be 1")
        self._encoder_keep, self._noise = encoder_keep, noise
        self._present: Tensor | None = None
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
        """All positions, but for unknown tokens that the encoder does not see."""
        network, length = self._network, tokens.shape[1]
        unknown = tokens == UNKNOWN
        positions, real = None, None
        if self._encoder_keep < 1:
            positions, real = self._kept_positions(unknown)
            every = torch.ones_like(positions, dtype=torch.bool) if real is None else real
            self._present = functional.pad(torch.zeros_like(unknown), (1, 0)).scatter(1, positions, every)
            self._present[:, 0] = True
        latent = self._encode(tokens, positions, length, fresh=True, attended=real)
        if not self._decoder:
            output = latent[:, 1:]
        else:
            embedded = network.decoder_embed(latent)
            fill = embedded[:, :1]
            if positions is not None:
                wide = positions[..., None].expand_as(embedded)
                embedded = fill.expand(-1, length + 1, -1).scatter(1, wide, embedded)
            filled = torch.where(unknown[..., None], fill, embedded[:, 1:])
            x = torch.cat([fill, filled], dim=1) + network.decoder_position
            output = self._decode(x, None, length)[:, 1:]
        chosen = output.gather(1, places[..., None].expand(-1, -1, output.shape[2]))
        return network.word_logits(chosen, network.vocabulary.num_codes)

    def _kept_positions(self, unknown: Bool[Tensor, "n l"]) -> tuple[Int[Tensor, "n s"], Bool[Tensor, "n s"] | None]:
        """Positions that the encoder computes, the class first; and which are no padding, None if all are.

        Unknown tokens are dropped at random until the share is left or none is unknown; the class position pads shorter
        rows.
        """
        assert self._noise is not None
        length = unknown.shape[1]
        most = length - math.ceil(self._encoder_keep * length)
        counts: list[int] = [length - min(count, most) for count in unknown.sum(dim=1).tolist()]
        rank = self._noise().masked_fill(~unknown, 2.0).argsort(dim=1, stable=True).argsort(dim=1)
        kept = rank >= torch.tensor([length - count for count in counts], device=rank.device)[:, None]
        places = first_places(kept, counts)
        real = functional.pad(kept.gather(1, places), (1, 0), value=True)
        positions = functional.pad(places + 1, (1, 0)) * real
        return positions, None if min(counts) == max(counts) else real

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
        if self._present is not None:
            self._present.scatter_(1, changed_positions, value=True)
        if not self._decoder:
            latent = self._encode(tokens, torch.cat([changed_positions, asked_positions], dim=1), length, fresh=False)
            return network.word_logits(latent[:, -asked:], network.vocabulary.num_codes)
        latent = self._encode(tokens, changed_positions, length, fresh=False, attended=self._present)
        embedded = network.decoder_embed(latent)
        fill = embedded[:, :1]
        known = functional.pad(counts & (tokens.gather(1, changed) != UNKNOWN), (1, 0))
        x = torch.cat([torch.where(known[..., None], embedded, fill), fill.expand(-1, asked, -1)], dim=1)
        positions = torch.cat([changed_positions, asked_positions], dim=1)
        decoded = self._decode(x + network.decoder_position[0][positions], positions, length)[:, -asked:]
        return network.word_logits(decoded, network.vocabulary.num_codes)

    def _encode(
        self,
        tokens: Int[Tensor, "n l"],
        positions: Int[Tensor, "n s"] | None,
        length: int,
        *,
        fresh: bool,
        attended: Bool[Tensor, "n k"] | None = None,
    ) -> Float[Tensor, "n s d"]:
        """The encoder's output, at all positions or at these."""
        encoder = self._network.encoder
        classes = self._classes if self._network.config.class_input == "encoder" else None
        words = tokens.masked_fill(tokens == UNKNOWN, self._network.vocabulary.mask_id)
        words = torch.cat([encoder.class_column(tokens, classes), words], dim=1)
        x = encoder.embedding(words if positions is None else words.gather(1, positions), positions)
        rows = None if positions is None else _rows(positions, length)
        for block in self._encoder:
            x = block(x, rows, length + 1, fresh=fresh, attended=attended)
        assert encoder.norm is not None
        latent: Tensor = encoder.norm(x)
        return latent

    def _decode(
        self, x: Float[Tensor, "n s d"], positions: Int[Tensor, "n s"] | None, length: int
    ) -> Float[Tensor, "n s d"]:
        network, rows = self._network, None if positions is None else _rows(positions, length)
        x = x + network.class_vectors(len(x), self._classes, x.device)
        for block in self._decoder:
            x = block(x, rows, length + 1, fresh=rows is None)
        decoded: Tensor = network.decoder_norm(x)
        return decoded


def _rows(positions: Int[Tensor, "n s"], length: int) -> Int[Tensor, " ns"]:
    """Where positions stand among those of the whole batch, grid after grid."""
    first = torch.arange(len(positions), device=positions.device)[:, None] * (length + 1)
    return (positions + first).flatten()
