"""MAGE: a ViT encoder-decoder that predicts masked tokens (paper, sections 3.1 and 3.2).

The encoder sees a class token and the tokens that were not dropped, masked ones as mask tokens. The decoder sees all
positions; masked and dropped ones are filled with the encoder's class-token output. The head scores every word.
Without a decoder (`decoder_depth=0`) and with nothing dropped this is MaskGIT's network: one transformer that sees all.

Classes may enter in two places (docs/method.md, Class conditions): as a word at the encoder's class position, for
training from scratch, or as a vector added to the decoder's input, which a trained network learns while its encoder
is frozen.

Letters: n images, l tokens of a grid of one, two or three dimensions, k kept tokens, d encoder width, p decoder width,
v words, c codes, u positions that are scored.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mage.masking import Mask
from mage.models.masked_loss import masked_loss
from mage.models.pooling import Pool, features_of
from mage.nn.blocks import choose_attention, transformer_blocks, xavier_linears
from mage.nn.embedding import TokenEmbedding
from mage.nn.grids import area, check_grid
from mage.nn.heads import TokenHead
from mage.nn.positions import sincos_positions
from mage.vocabulary import Vocabulary


@dataclass(frozen=True)
class MAGEConfig:
    """Sizes of the network; the defaults are ViT-B as published."""

    width: int = 768
    """Width of the encoder."""
    depth: int = 12
    """Blocks of the encoder."""
    heads: int = 12
    """Attention heads of the encoder."""
    decoder_width: int = 768
    """Width of the decoder."""
    decoder_depth: int = 8
    """Blocks of the decoder; 0: no decoder, the head reads the encoder and nothing may be dropped, as in MaskGIT."""
    decoder_heads: int = 16
    """Attention heads of the decoder."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs, as a multiple of the width."""
    dropout: float = 0.1
    """Dropout on embeddings, attention, projections and MLPs, in training."""
    label_smoothing: float = 0.1
    """Label smoothing of the loss, over the codes."""
    position_init: Literal["normal", "sincos"] = "normal"
    """Initial learned positions: normal is the paper's, N(0, 0.02); sincos learns faster in short runs."""
    num_classes: int = 0
    """Number of classes the network is conditioned on; 0: none."""
    class_input: Literal["encoder", "decoder"] = "encoder"
    """Where a class enters: as the encoder's class word, or added to the decoder's input (the paper's, section 4.2)."""

    def __post_init__(self) -> None:
        if self.num_classes < 0:
            raise ValueError(f"num_classes must be 0 or more, not {self.num_classes}")
        if self.num_classes and self.class_input == "decoder" and not self.decoder_depth:
            raise ValueError("class_input='decoder' needs a decoder, and decoder_depth is 0")


class MAGEEncoder(nn.Module):
    """Embedding and blocks; `norm` is left out in classifiers that pool by mean."""

    def __init__(
        self,
        config: MAGEConfig,
        vocabulary: Vocabulary,
        grid: tuple[int, ...],
        *,
        final_norm: bool = True,
        drop_path: float = 0.0,
        embedding_dropout: float | None = None,
    ) -> None:
        """embedding_dropout: dropout after the embedding; None: the configuration's, as in the blocks."""
        super().__init__()
        self.vocabulary, self.grid = vocabulary, check_grid(grid)
        dropout = config.dropout if embedding_dropout is None else embedding_dropout
        self.embedding = TokenEmbedding(vocabulary.size, area(self.grid) + 1, config.width, dropout=dropout)
        self.blocks = transformer_blocks(
            config.depth,
            config.width,
            config.heads,
            mlp_ratio=config.mlp_ratio,
            dropout=config.dropout,
            drop_path=drop_path,
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-6) if final_norm else None

    def forward(
        self, ids: Int[Tensor, "n l"], mask: Mask | None = None, classes: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n k1 d"]:
        """Output of the last block, class position first, before the final norm. classes: as in `embed`."""
        x = self.embed(ids, mask, classes)
        for block in self.blocks:
            x = block(x)
        return x

    def embed(
        self, ids: Int[Tensor, "n l"], mask: Mask | None = None, classes: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n k1 d"]:
        """Input of the first block. classes: the words at the class position, -1 = none."""
        positions = None
        if mask is not None:
            ids = ids.masked_fill(mask.masked, self.vocabulary.mask_id)
            if mask.num_kept < ids.shape[1]:
                ids = ids.gather(1, mask.kept_index)
                positions = functional.pad(mask.kept_index + 1, (1, 0))
        embedded: Tensor = self.embedding(torch.cat([self.class_column(ids, classes), ids], dim=1), positions)
        return embedded

    def class_column(self, ids: Int[Tensor, "n k"], classes: Int[Tensor, " n"] | None) -> Int[Tensor, "n 1"]:
        """The words at the class position."""
        column = ids.new_full((ids.shape[0], 1), self.vocabulary.null_class_id)  # len() would fix it in exports
        if classes is None:
            return column
        words = self.vocabulary.num_codes + classes.to(ids)[:, None]
        return torch.where(classes.to(ids.device)[:, None] < 0, column, words)

    def embed_mixed(self, shares: Float[Tensor, "n l c"]) -> Float[Tensor, "n l1 d"]:
        """Like `embed`, for complete grids whose tokens are mixtures of codes, so that gradients reach the images."""
        words = self.embedding.word.weight
        null_class = words[self.vocabulary.null_class_id].expand(len(shares), 1, -1)
        x: Tensor = self.embedding.place(torch.cat([null_class, shares @ words[: shares.shape[2]]], dim=1))
        return x

    def features(self, ids: Int[Tensor, "n l"], pool: Pool) -> Float[Tensor, "n f"]:
        """Mean of the last block's tokens, layer-normalised; or the class token (docs/method.md, Features).

        both: the two concatenated, 2 d numbers. last4: both, of each of the last four blocks, 8 d numbers.
        """
        return features_of(self.embed(ids), self.blocks, pool, self.norm)


def rows_of_tokens(ids: Int[Tensor, "..."], grid: tuple[int, ...]) -> Int[Tensor, "n l"]:
    """Token grids (n, *grid), or rows (n, l), as rows. Raises ValueError for any other shape."""
    if tuple(ids.shape[1:]) not in (tuple(grid), (area(grid),)):
        raise ValueError(f"tokens have shape {tuple(ids.shape)}; this model takes (N, {', '.join(map(str, grid))})")
    return ids.flatten(1)


@dataclass(frozen=True)
class MAGEOutput:
    """Result of a pass; logits are computed on access, because losses and samplers need only a part of them."""

    latent: Float[Tensor, "n k1 d"]
    """Encoder output after its norm, class position first."""
    decoded: Float[Tensor, "n l p"]
    """Decoder output after its norm, without the class position."""
    model: "MAGETransformer"

    @cached_property
    def logits(self) -> Float[Tensor, "n l v"]:
        """Scores of all words at all positions."""
        return self.model.word_logits(self.decoded, self.model.vocabulary.size)

    @cached_property
    def code_logits(self) -> Float[Tensor, "n l c"]:
        """Scores of the codes only."""
        return self.model.word_logits(self.decoded, self.model.vocabulary.num_codes)

    def code_logits_at(self, places: Int[Tensor, "n u"]) -> Float[Tensor, "n u c"]:
        """Scores of the codes at the positions `places` of each image."""
        chosen = self.decoded.gather(1, places[..., None].expand(-1, -1, self.decoded.shape[2]))
        return self.model.word_logits(chosen, self.model.vocabulary.num_codes)


class MAGETransformer(nn.Module):
    """The network of the paper, without the tokenizer."""

    def __init__(self, config: MAGEConfig, vocabulary: Vocabulary, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.config, self.vocabulary, self.grid = config, vocabulary, check_grid(grid)
        self.encoder = MAGEEncoder(config, vocabulary, self.grid)
        if config.decoder_depth:
            self._add_decoder()
        self.head = TokenHead(
            vocabulary.size, config.decoder_width if config.decoder_depth else config.width, config.width
        )
        xavier_linears(self)
        if config.decoder_depth:
            nn.init.normal_(self.decoder_position, std=0.02)
        if config.position_init == "sincos":
            self._start_from_sincos()
        if config.num_classes and config.class_input == "decoder":
            # The last row is "no class". All are zero, so that a trained network starts with unchanged outputs.
            self.class_embedding = nn.Embedding(config.num_classes + 1, config.decoder_width)
            nn.init.zeros_(self.class_embedding.weight)
        elif config.num_classes > vocabulary.num_classes:
            raise ValueError(
                f"the vocabulary has words for {vocabulary.num_classes} classes, not for {config.num_classes}"
            )
        choose_attention(self, self.head.bias.device)

    def _add_decoder(self) -> None:
        config = self.config
        self.decoder_embed = nn.Linear(config.width, config.decoder_width)
        self.decoder_position = nn.Parameter(torch.empty(1, area(self.grid) + 1, config.decoder_width))
        self.decoder_blocks = transformer_blocks(
            config.decoder_depth,
            config.decoder_width,
            config.decoder_heads,
            mlp_ratio=config.mlp_ratio,
            dropout=config.dropout,
        )
        self.decoder_norm = nn.LayerNorm(config.decoder_width, eps=1e-6)

    @torch.no_grad()
    def _start_from_sincos(self) -> None:
        """Sine-cosine positions, scaled like the vectors they are added to: 0.02 in the embedding, 1 in the decoder."""
        self.encoder.embedding.position.weight[1:] = 0.02 * sincos_positions(self.grid, self.config.width)
        if self.config.decoder_depth:
            self.decoder_position[0, 1:] = sincos_positions(self.grid, self.config.decoder_width)

    def forward(self, ids: Int[Tensor, "..."], mask: Mask, classes: Int[Tensor, " n"] | None = None) -> MAGEOutput:
        """Predict all positions from the unmasked ones. `ids` is (n, *grid) or (n, l); masked ids are not read.

        classes: one per image, -1 = none. Raises ValueError if this network was trained without classes.
        """
        if classes is not None and not self.config.num_classes:
            raise ValueError("this network was trained without classes; leave out the classes")
        ids = self.check_ids(ids)
        if tuple(mask.masked.shape) != tuple(ids.shape):
            raise ValueError(f"mask {tuple(mask.masked.shape)} and tokens {tuple(ids.shape)} must have the same shape")
        # Unknown tokens may carry any value, such as -1, as long as they are masked.
        assert self.encoder.norm is not None
        words = classes if self.config.class_input == "encoder" else None
        latent = self.encoder.norm(self.encoder(ids, mask, words))
        return MAGEOutput(latent=latent, decoded=self._decode(latent, mask, classes), model=self)

    def check_ids(self, ids: Int[Tensor, "..."]) -> Int[Tensor, "n l"]:
        """Token grids as rows. Raises ValueError for another number of tokens."""
        return rows_of_tokens(ids, self.grid)

    def _decode(
        self, latent: Float[Tensor, "n k1 d"], mask: Mask, classes: Int[Tensor, " n"] | None
    ) -> Float[Tensor, "n l p"]:
        if not self.config.decoder_depth:
            if mask.num_kept < mask.masked.shape[1]:
                raise ValueError("a network without a decoder must see every position: nothing may be dropped")
            return latent[:, 1:]
        x = self.decoder_embed(latent)
        count, length = mask.masked.shape
        fill, kept = x[:, :1], x[:, 1:]
        if kept.shape[1] < length:
            # Row of `kept` that holds each position; dropped positions read an arbitrary row and are filled below.
            source = (~mask.dropped).cumsum(dim=1).sub_(1).clamp_(min=0)
            source = source + torch.arange(count, device=source.device)[:, None] * kept.shape[1]
            kept = kept.reshape(-1, kept.shape[2])[source]
        tokens = torch.where(mask.masked[..., None], fill, kept)
        x = torch.cat([fill, tokens], dim=1) + self.decoder_position + self.class_vectors(count, classes, fill.device)
        for block in self.decoder_blocks:
            x = block(x)
        decoded: Tensor = self.decoder_norm(x[:, 1:])
        return decoded

    def class_vectors(
        self, count: int, classes: Int[Tensor, " n"] | None, device: torch.device
    ) -> Float[Tensor, "n 1 p"] | float:
        """What classes add to the decoder's input, one vector per image; 0 where they enter elsewhere."""
        if not self.config.num_classes or self.config.class_input != "decoder":
            return 0.0
        none = torch.full((count,), self.config.num_classes, device=device)
        rows = none if classes is None else torch.where(classes < 0, none, classes)
        vectors: Tensor = self.class_embedding(rows)[:, None]
        return vectors

    def word_logits(self, decoded: Float[Tensor, "*n p"], num_words: int) -> Float[Tensor, "*n k"]:
        """Scores of the first `num_words` words for decoder outputs."""
        logits: Tensor = self.head(decoded, self.encoder.embedding.word.weight, num_words)
        return logits

    def loss(
        self, output: MAGEOutput, ids: Int[Tensor, "..."], mask: Mask, *, smoothing: float | None = None
    ) -> Float[Tensor, ""]:
        """Cross-entropy over the codes with label smoothing, mean over the batch's masked positions (section 3.2).

        smoothing: None: that of the network's training.
        """
        score = partial(self.word_logits, num_words=self.vocabulary.num_codes)
        smoothing = self.config.label_smoothing if smoothing is None else smoothing
        return masked_loss(score, output.decoded, self.check_ids(ids), mask, smoothing=smoothing)

    def features(self, ids: Int[Tensor, "..."], pool: Pool = "mean") -> Float[Tensor, "n f"]:
        """Features of complete token grids; nothing is masked (docs/method.md, Features; paper, section 4.3)."""
        return self.encoder.features(self.check_ids(ids), pool)
