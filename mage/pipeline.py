"""The object a user meets: a tokenizer and a transformer that generate, edit, reconstruct and describe images.

Letters: n images, c channels, H W pixels, h w tokens, d feature width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mage import precision as precision_policy
from mage import rng
from mage.masking import mask_from_noise
from mage.models import MAGE, Classifier, MAGEClassifier, PatchClassifier, PatchEncoder, Transformer
from mage.models.intermediates import MapFormat, intermediates
from mage.models.mage import Pool
from mage.nn.blocks import choose_attention
from mage.sampling.decode import UNKNOWN, SamplingConfig
from mage.sampling.edit import one_mask_each, token_mask
from mage.sampling.generator import fill, unknown_grids
from mage.settings import from_dict
from mage.tokenizers import Tokenizer

OnBatch = Callable[[int], None]
"""Called with the number of images finished since the last call."""


class Mage:
    """A tokenizer, a transformer, and the recipe that made them. Either network may be missing."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        transformer: Transformer | None,
        *,
        recipe: dict[str, Any] | None = None,
        notes: dict[str, Any] | None = None,
        precision: str = "auto",
        device: str | torch.device = "auto",
    ) -> None:
        """precision: "auto", "float32" or "bf16"; device: "auto", "cpu", "cuda". Raises ValueError if they clash.

        notes: what training leaves for later, such as how well the tokenizer did on held-out images; saved with it.
        """
        self.device = precision_policy.resolve_device(device)
        self.precision = precision_policy.resolve(precision, self.device)
        self._tokenizer, self._transformer = tokenizer, transformer
        self.recipe, self.notes = recipe or {}, notes or {}
        for module in (tokenizer, transformer):
            if isinstance(module, nn.Module):
                module.to(self.device).eval().requires_grad_(False)
                choose_attention(module, self.device)
        if tokenizer is not None and isinstance(transformer, MAGE | MAGEClassifier):
            words = (transformer.vocabulary.num_codes, tuple(transformer.grid))
            if words != (tokenizer.num_codes, tuple(tokenizer.grid)):
                raise ValueError(
                    f"the tokenizer has {tokenizer.num_codes} codes on a grid of {tuple(tokenizer.grid)}, "
                    f"the transformer knows {words[0]} on {words[1]}"
                )

    @property
    def tokenizer(self) -> Any:
        """The tokenizer: encode(images) -> ids (n, h, w); decode(ids) -> images. None if this model has none."""
        return self._tokenizer

    @property
    def transformer(self) -> Any:
        """The MAGE network, an encoder with a classifier, the pixel encoder of a rival, or None."""
        return self._transformer

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        sees = self._sees_pixels()
        return self._need_tokenizer().image_size if sees is None else sees.config.image_size

    @property
    def channels(self) -> int:
        """Channels of an image."""
        sees = self._sees_pixels()
        return self._need_tokenizer().channels if sees is None else sees.config.channels

    @property
    def sampling(self) -> SamplingConfig:
        """The sampler's settings for this model: its recipe's, else the paper's."""
        return from_dict(SamplingConfig, self.recipe.get("sampling", {}), where="sampling")

    def generate(self, n: int, *, batch_size: int = 64, **sampling: Any) -> Float[Tensor, "n c H W"]:
        """`n` new images in [0, 1]; settings as in `generate_tokens`."""
        return self.decode_tokens(self.generate_tokens(n, batch_size=batch_size, **sampling), batch_size=batch_size)

    @torch.inference_mode()
    def generate_tokens(
        self,
        n: int,
        *,
        steps: int | None = None,
        choice_temperature: float | None = None,
        token_temperature: float | None = None,
        encoder_keep: float | None = None,
        seed: int = 0,
        start: Int[Tensor, "..."] | None = None,
        first_index: int = 0,
        batch_size: int = 64,
        on_batch: OnBatch | None = None,
    ) -> Int[Tensor, "n h w"]:
        """`n` token grids by iterative decoding (section 3.2), without their pixels.

        steps: network passes per image. choice_temperature: more means more variety. token_temperature: 0 is argmax.
        encoder_keep: share of the tokens that the encoder sees while more are unknown; 0.5, as in training, is faster.
        Where these are not given, the model's own settings: those of its recipe, else the paper's 20, 6.0, 1.0 and 1.0.
        start: grids (n, h, w) to complete, -1 = unknown; default all unknown.
        first_index: number of the first image; image k of a seed is the same whatever the batch.
        """
        transformer = self._need_generator()
        if n < 1 or batch_size < 1:
            raise ValueError(f"the number of images and the batch size must be positive, not {n} and {batch_size}")
        if start is None:
            grids = unknown_grids(transformer, n, self.device)
        else:
            grids = transformer.check_ids(start.to(self.device, torch.int64))
            if len(grids) != n:
                raise ValueError(f"start holds {len(grids)} grids, {n} were asked for")
            if grids.min() < UNKNOWN or grids.max() >= transformer.vocabulary.num_codes:
                raise ValueError(f"start must hold -1 for unknown or codes below {transformer.vocabulary.num_codes}")
        given: dict[str, Any] = dict(
            steps=steps,
            choice_temperature=choice_temperature,
            token_temperature=token_temperature,
            encoder_keep=encoder_keep,
        )
        chosen = replace(self.sampling, **{name: value for name, value in given.items() if value is not None})
        with self.autocast():
            batches = fill(
                precision_policy.cast_for_inference(transformer, self.precision),
                grids,
                indices=range(first_index, first_index + n),
                seed=seed,
                stream="sample",
                batch_size=batch_size,
                on_batch=on_batch,
                **asdict(chosen),
            )
            return torch.cat(list(batches)).view(n, *transformer.grid)

    def edit(
        self,
        images: Float[Tensor, "*n c H W"],
        mask: Bool[Tensor, "*m H W"],
        *,
        paste: bool = False,
        batch_size: int = 64,
        **sampling: Any,
    ) -> Float[Tensor, "*n c H W"]:
        """Draw the marked part of each image anew: inpaint, outpaint, uncrop (section 4.5).

        mask: True = draw anew; one for all images or one each. A token that a marked pixel touches is drawn anew.
        paste: keep untouched pixels exactly as given; otherwise they pass through the tokenizer.
        An image of which nothing is marked comes back as it is. Other settings as in `generate_tokens`.
        """
        single = images.ndim == 3
        batch = (images[None] if single else images).to(self.device)
        anew = token_mask(one_mask_each(mask, batch), self._need_generator().grid)
        tokens = self.encode(batch, batch_size=batch_size).masked_fill(anew, UNKNOWN)
        tokens = self.generate_tokens(len(batch), start=tokens, batch_size=batch_size, **sampling)
        edited = self.decode_tokens(tokens, batch_size=batch_size)
        keep = ~anew.any(dim=(1, 2))[:, None, None, None]
        if paste:
            scale = [side // tokens_ for side, tokens_ in zip(batch.shape[-2:], anew.shape[1:], strict=True)]
            keep = keep | ~anew.repeat_interleave(scale[0], 1).repeat_interleave(scale[1], 2)[:, None]
        result = torch.where(keep, batch, edited.to(batch))
        return result[0] if single else result

    def reconstruct(
        self,
        images: Float[Tensor, "*n c H W"],
        *,
        mask_ratio: float = 0.75,
        seed: int = 0,
        steps: int = 1,
        choice_temperature: float = 0.0,
        token_temperature: float = 0.0,
        batch_size: int = 64,
    ) -> Float[Tensor, "*n c H W"]:
        """Mask a random share of the tokens and fill them in again (the paper's figure 2).

        steps=1 is one pass with the most probable codes. Nothing is dropped: the encoder sees every mask token.
        """
        single = images.ndim == 3
        tokens = self.mask_tokens(
            self.encode(images[None] if single else images, batch_size=batch_size), mask_ratio, seed
        )
        tokens = self.generate_tokens(
            len(tokens),
            start=tokens,
            seed=seed,
            steps=steps,
            choice_temperature=choice_temperature,
            token_temperature=token_temperature,
            encoder_keep=1.0,
            batch_size=batch_size,
        )
        result = self.decode_tokens(tokens, batch_size=batch_size)
        return result[0] if single else result

    def mask_tokens(self, ids: Int[Tensor, "n h w"], mask_ratio: float, seed: int) -> Int[Tensor, "n h w"]:
        """Set ceil(mask_ratio x tokens) random tokens of each grid to -1; image k has the same noise at every ratio."""
        generators = [rng.generator(seed, "mask", index) for index in range(len(ids))]
        noise = rng.uniform_rows(generators, ids[0].numel(), like=ids)
        masked = mask_from_noise(noise, mask_ratio, drop_ratio=0).masked
        return ids.masked_fill(masked.view_as(ids), UNKNOWN)

    @torch.inference_mode()
    def features(
        self, images: Float[Tensor, "n c H W"], pool: Pool = "mean", *, batch_size: int = 64
    ) -> Float[Tensor, "n d"]:
        """One vector per image (section 4.3): pool "mean" over tokens, the "class" token, or "both", (n, 2 d)."""
        transformer = self._need_transformer()
        return self._in_batches(images, batch_size, lambda batch: transformer.features(self._inputs(batch), pool))

    @torch.inference_mode()
    def forward_intermediates(
        self,
        images: Float[Tensor, "n c H W"],
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        output_fmt: MapFormat = "NCHW",
        batch_size: int = 64,
    ) -> list[Float[Tensor, "..."]]:
        """Dense features: the outputs of some encoder blocks, in timm's manner and order.

        indices: numbers of blocks, from 0 or, negative, from the end; one number n: the last n; None: all.
        norm: pass them through the encoder's final norm. output_fmt: maps (n, d, h, w), or rows (n, l, d).
        """
        encoder = self._encoder()

        def outputs(batch: Tensor) -> Tensor:
            return torch.stack(intermediates(encoder, self._inputs(batch), indices, norm, output_fmt), dim=1)

        return list(self._in_batches(images, batch_size, outputs).unbind(1))

    @torch.inference_mode()
    def classify(self, images: Float[Tensor, "n c H W"], *, batch_size: int = 64) -> Float[Tensor, "n k"]:
        """Class scores; only for checkpoints of a linear probe or of fine-tuning."""
        transformer = self._need_transformer()
        if not isinstance(transformer, Classifier):
            raise ValueError("this model has no classifier; `mage probe` trains one on its features")
        return self._in_batches(images, batch_size, lambda batch: transformer(self._inputs(batch)))

    @torch.inference_mode()
    def encode(self, images: Float[Tensor, "n c H W"], *, batch_size: int = 64) -> Int[Tensor, "n h w"]:
        """Images in [0, 1] -> ids, in batches, on the model's device."""
        return self._in_batches(images, batch_size, self._need_tokenizer().encode)

    @torch.inference_mode()
    def decode_tokens(self, ids: Int[Tensor, "n h w"], *, batch_size: int = 64) -> Float[Tensor, "n c H W"]:
        """Ids -> images in [0, 1], in batches, on the model's device."""
        return self._in_batches(ids, batch_size, self._need_tokenizer().decode)

    def save(self, path: str | Path) -> Path:
        """Write the model as a folder of safetensors and config.json; whole or not at all."""
        from mage.checkpoints import io  # checkpoints stand above this file: they build it

        return io.save(self, path)

    def autocast(self) -> Any:
        """The context that applies this model's precision."""
        return precision_policy.autocast(self.precision, self.device)

    def _in_batches(self, inputs: Tensor, batch_size: int, function: Callable[[Tensor], Tensor]) -> Tensor:
        if len(inputs) == 0:
            raise ValueError("there are no images: the batch is empty")

        def results() -> Iterator[Tensor]:
            for batch in inputs.split(batch_size):
                with self.autocast():
                    yield function(batch.to(self.device))

        return torch.cat(list(results()))

    def _need_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise ValueError("this model has no tokenizer, so it knows tokens but not images")
        return self._tokenizer

    def _sees_pixels(self) -> PatchEncoder | PatchClassifier | None:
        return self._transformer if isinstance(self._transformer, PatchEncoder | PatchClassifier) else None

    def _inputs(self, images: Tensor) -> Tensor:
        """What the transformer takes: tokens, or the images themselves."""
        return images if self._sees_pixels() is not None else self._need_tokenizer().encode(images)

    def _encoder(self) -> Any:
        transformer = self._need_transformer()
        return transformer if isinstance(transformer, PatchEncoder) else transformer.encoder

    def _need_transformer(self) -> Transformer:
        if self._transformer is None:
            raise ValueError("this is a tokenizer without a transformer; `mage pretrain` trains one on its tokens")
        return self._transformer

    def _need_generator(self) -> MAGE:
        transformer = self._need_transformer()
        if not isinstance(transformer, MAGE):
            raise ValueError("this checkpoint holds an encoder only and cannot generate: it has no decoder")
        return transformer
