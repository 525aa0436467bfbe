"""What a model says about images: features, dense features, class scores, and how much each token surprises it.

Letters: n images, c channels, H W pixels, h w tokens, d feature width, k classes, a heads, p positions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import device as device_policy
from mage.inputs import Images
from mage.models import Classifier, MAGETransformer, PatchEncoder
from mage.models.attention import encoder_attention
from mage.models.intermediates import MapFormat, intermediates
from mage.models.pooling import Pool
from mage.nn.grids import area
from mage.pipeline.modes import evaluating, in_batches
from mage.pipeline.networks import Networks
from mage.sampling.classes import Classes, class_numbers
from mage.sampling.code_length import code_length
from mage.sampling.settings import SamplingConfig
from mage.sampling.surprise import Surprise, surprise
from mage.settings import from_dict

PASSES = 16
"""Default number of passes of `code_length_of_tokens`."""
PARTS, DRAWS = 2, 1
"""Default division of the tokens, and number of divisions, of `surprise`."""


class Describing(Networks):
    """The networks, and descriptions of images by them."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that this model generates or classifies, if known."""
        return tuple(self.notes.get("class_names", ()))

    @property
    def sampling(self) -> SamplingConfig:
        """The sampler's settings for this model: its recipe's, else the paper's."""
        return from_dict(SamplingConfig, self.recipe.get("sampling", {}), where="sampling")

    def features(self, images: Images, pool: Pool = "mean", *, batch_size: int = 64) -> Float[Tensor, "n f"]:
        """One vector per image (section 4.3): pool "mean" over tokens, the "class" token, or "both", (n, 2 d).

        "last4": both, of each of the last four blocks, (n, 8 d), as linear probes of DINO take them.
        """
        network = self.require_transformer()
        return self._describe(images, batch_size, lambda inputs: network.features(inputs, pool))

    def forward_intermediates(
        self,
        images: Images,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        output_fmt: MapFormat = "NCHW",
        batch_size: int = 64,
    ) -> list[Float[Tensor, "..."]]:
        """Dense features: the outputs of the chosen encoder blocks, in timm's format and order.

        indices: numbers of blocks, from 0 or, negative, from the end; one number n: the last n; None: all.
        norm: pass them through the encoder's final norm, which a classifier that pools by mean has not; it then changes
        nothing, as in timm. output_fmt: maps (n, d, h, w), or rows (n, l, d).
        """
        network = self.require_transformer()
        encoder = network if isinstance(network, PatchEncoder) else network.encoder

        def outputs(inputs: Tensor) -> Tensor:
            return torch.stack(intermediates(encoder, inputs, indices, norm, output_fmt), dim=1)

        return list(self._describe(images, batch_size, outputs).unbind(1))

    def attention(self, images: Images, block: int = -1, *, batch_size: int = 64) -> Float[Tensor, "n a p p"]:
        """How much each position takes from every other one in a block of the encoder, for each of its heads.

        Position 0 is the class token, the others are the tokens row by row; each row sums to 1. block: its number,
        from 0 or, negative, from the end. Raises ValueError for a block that does not exist.
        """
        network = self.require_transformer()
        encoder = network if isinstance(network, PatchEncoder) else network.encoder
        return self._describe(images, batch_size, lambda inputs: encoder_attention(encoder, inputs, block))

    def classify(self, images: Images, *, batch_size: int = 64) -> Float[Tensor, "n k"]:
        """Class scores; only for checkpoints of a linear probe or of fine-tuning."""
        network = self.require_transformer()
        if not isinstance(network, Classifier):
            raise ValueError("this model has no classifier; `mage finetune` trains one on it")
        return self._describe(images, batch_size, network)

    def surprise(
        self,
        images: Images,
        *,
        parts: int = PARTS,
        draws: int = DRAWS,
        classes: Classes = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Float[Tensor, "n h w"]:
        """How unlikely each token is given the others: -ln p, in nats; a map for each image.

        parts: passes; each masks one part of the tokens, so that every token is predicted once, from the other parts.
        draws: number of random divisions into parts that are averaged. classes: one for all images or one per image;
        None: without class. The map of an image depends on neither its batch nor its place in it.
        """
        self.require_generator()  # before the images are encoded
        tokens = self.encode(images, batch_size=batch_size)
        return self.surprise_of_tokens(
            tokens, parts=parts, draws=draws, classes=classes, seed=seed, batch_size=batch_size
        )

    def surprise_of_tokens(
        self,
        ids: Int[Tensor, "n *grid"],
        *,
        parts: int = PARTS,
        draws: int = DRAWS,
        classes: Classes = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Float[Tensor, "n *grid"]:
        """`surprise` for complete token grids, of images or of anything else. Raises ValueError for unknown tokens."""
        return self.surprise_and_expected(
            ids, parts=parts, draws=draws, classes=classes, seed=seed, batch_size=batch_size
        ).found

    def surprise_and_expected(
        self,
        ids: Int[Tensor, "n *grid"],
        *,
        parts: int = PARTS,
        draws: int = DRAWS,
        classes: Classes = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Surprise:
        """`surprise_of_tokens`, and what the network expected it to be: two maps in nats, from the same passes.

        Their difference is about 0 on average for grids like those of the training, simple ones and busy ones.
        """
        network = self.require_generator()

        def score(scored: MAGETransformer, tokens: Tensor, given: Tensor | None) -> Tensor:
            return torch.stack(surprise(scored, tokens, parts=parts, draws=draws, seed=seed, classes=given), dim=1)

        both = self._score_tokens(ids, classes, batch_size, score).view(len(ids), 2, *network.grid)
        return Surprise(*both.unbind(dim=1))

    def code_length_of_tokens(
        self,
        ids: Int[Tensor, "n *grid"],
        *,
        passes: int = PASSES,
        classes: Classes = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Float[Tensor, " n"]:
        """-ln p of complete token grids, in nats: what they cost when told token by token in random order.

        Divided by the number of tokens and by ln 2 it is bits per token, such as bits per character. passes: numbers of
        known tokens that are tried, evenly spread from none to all but one, at most one for each token; more make the
        estimate steadier. Numbers of different tokenizers cannot be compared. Raises ValueError for unknown tokens.
        """
        network = self.require_generator()
        passes = min(passes, area(network.grid))
        keep = self.sampling.encoder_keep if network.config.decoder_depth else 1.0

        def score(scored: MAGETransformer, tokens: Tensor, given: Tensor | None) -> Tensor:
            return code_length(scored, tokens, passes=passes, encoder_keep=keep, seed=seed, classes=given)

        return self._score_tokens(ids, classes, batch_size, score)

    def _score_tokens(self, ids: Tensor, classes: Classes, batch_size: int, score: Any) -> Tensor:
        """Apply `score` (network, tokens, classes or None) to batches of complete grids (n, l)."""
        network = self.require_generator()
        tokens, codes = network.check_ids(ids.to(self.device)), network.vocabulary.num_codes
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < codes:
            low, high = int(tokens.min()), int(tokens.max())
            raise ValueError(f"tokens run from {low} to {high}: only complete grids of codes below {codes} are scored")
        wanted = tokens.new_full((len(tokens),), -1)
        if classes is not None:
            wanted = class_numbers(classes, len(tokens), network.config.num_classes, self.class_names).to(wanted)
        with evaluating(network):
            scored = device_policy.cast_for_inference(network, self.precision)

            def score_rows(rows: Tensor) -> Tensor:
                result: Tensor = score(scored, rows[:, 1:], rows[:, 0] if network.config.num_classes else None)
                return result

            # the class travels as the first column, so that rows are divided into batches together with it
            rows = torch.cat([wanted[:, None], tokens], dim=1)
            return in_batches(rows, batch_size, score_rows, self.precision, self.device)

    def _describe(self, images: Images, batch_size: int, function: Any) -> Tensor:
        """Apply `function` to batches of the transformer's input: tokens, or the images themselves."""
        tokenizer = self.require_tokenizer() if self._patches() is None else None
        pixels = self._images(images).pixels

        def describe(batch: Tensor) -> Tensor:
            described: Tensor = function(batch if tokenizer is None else tokenizer.encode(batch))
            return described

        with evaluating(self._tokenizer, self._transformer):
            return in_batches(pixels, batch_size, describe, self.precision, self.device)
