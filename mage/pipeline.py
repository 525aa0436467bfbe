"""The object a user meets: a tokenizer and a transformer that generate, edit, reconstruct and describe images.

Letters: n images, c channels, H W pixels, h w tokens, d feature width.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mage import device as device_policy
from mage import rng
from mage.describer import Describer
from mage.masking import mask_from_noise
from mage.models import MAGE
from mage.sampling.classes import Classes, class_numbers, drawn_classes, listed
from mage.sampling.decode import UNKNOWN
from mage.sampling.edit import marked_pixels, one_mask_each, token_mask
from mage.sampling.generator import fill, unknown_grids
from mage.sampling.large import decode_large, encode_large, fill_large, pad_to_windows
from mage.sampling.settings import SamplingConfig
from mage.settings import from_dict
from mage.store import folder as store
from mage.store.parts import ModelParts
from mage.tokenizers import Tokenizer

OnBatch = Callable[[int], None]
"""Called with the number of images finished since the last call."""


def load(
    path: str | Path,
    *,
    tokenizer: Tokenizer | None = None,
    precision: str = "auto",
    device: str | torch.device = "auto",
) -> "Mage":
    """Read a model folder, or the `model` folder inside a run. Raises ValueError for anything else.

    tokenizer: your own, for a model that was trained on its tokens; without it such a model works on tokens only.
    precision: "auto", "float32" or "bf16"; device: "auto", "cpu", "cuda", "cuda:1", "mps".
    """
    return Mage.of(store.read(path, tokenizer=tokenizer), precision=precision, device=device)


class Mage(Describer):
    """A tokenizer, a transformer, and the recipe that made them. Either network may be missing."""

    @classmethod
    def of(cls, parts: ModelParts, *, precision: str = "auto", device: str | torch.device = "auto") -> "Mage":
        """The model made of these parts."""
        return cls(
            parts.tokenizer,
            parts.transformer,
            recipe=parts.recipe,
            notes=parts.notes,
            precision=precision,
            device=device,
        )

    @property
    def parts(self) -> ModelParts:
        """What the model is made of."""
        return ModelParts(self.tokenizer, self.transformer, self.recipe, self.notes)

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
        classes: Classes = None,
        seed: int = 0,
        start: Int[Tensor, "..."] | None = None,
        first_index: int = 0,
        batch_size: int = 64,
        on_batch: OnBatch | None = None,
        **sampling: Any,
    ) -> Int[Tensor, "n h w"]:
        """`n` token grids by iterative decoding (section 3.2), without their pixels.

        classes: one for all or one each, by number or name, -1 = none. Without it a model of labels draws without
        class, a model of clusters each cluster as often as it occurred, unless it completes what `start` holds.
        start: grids (n, h, w) to complete, -1 = unknown; default all unknown.
        first_index: number of the first image; image k of a seed is the same whatever the batch.
        sampling: settings of SamplingConfig, such as steps, choice_temperature (more means more variety), order, top_p
        or guidance; None and what is left out: the model's own, those of its recipe, else the paper's.
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
        indices = range(first_index, first_index + n)
        settings = self.check_generation(classes, sampling)
        wanted = None
        if classes is not None:
            wanted = class_numbers(classes, n, transformer.config.num_classes, self.class_names)
        elif start is None and self.notes.get("class_shares"):  # what is there already says what it is
            wanted = drawn_classes(self.notes["class_shares"], seed, indices)
        with self.autocast():
            batches = fill(
                device_policy.cast_for_inference(transformer, self.precision),
                grids,
                indices=indices,
                seed=seed,
                stream="sample",
                settings=settings,
                batch_size=batch_size,
                classes=None if wanted is None else wanted.to(self.device),
                on_batch=on_batch,
            )
            return torch.cat(list(batches)).view(n, *transformer.grid)

    def check_generation(self, classes: Classes, sampling: Mapping[str, Any]) -> SamplingConfig:
        """The sampler's settings with these changes, None for none; raises ValueError if this model cannot do so."""
        transformer = self._need_generator()
        known = {field.name for field in fields(SamplingConfig)}
        if unknown := set(sampling) - known:
            raise TypeError(f"there is no setting {sorted(unknown)[0]!r} of sampling; there are {', '.join(known)}")
        settings = replace(self.sampling, **{k: value for k, value in sampling.items() if value is not None})
        if classes is not None:
            class_numbers(classes, len(listed(classes)), transformer.config.num_classes, self.class_names)
        if settings.guidance and not transformer.config.num_classes:
            raise ValueError("guidance needs a model with classes; this one was trained without")
        return settings

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that this model draws, as far as it knows them."""
        return tuple(self.notes.get("class_names", ()))

    def edit(
        self,
        images: Float[Tensor, "*n c H W"],
        mask: Bool[Tensor, "*m H W"],
        *,
        paste: bool = False,
        batch_size: int = 64,
        **sampling: Any,
    ) -> Float[Tensor, "*n c H W"]:
        """Draw the marked part of each image anew: inpaint, outpaint, uncrop, another class (section 4.5).

        mask: True = draw anew; one for all images or one each. A token that a marked pixel touches is drawn anew.
        paste: keep untouched pixels exactly as given; otherwise they pass through the tokenizer.
        An image of which nothing is marked comes back as it is. Images larger than the model's are edited in windows
        that slide over their tokens. Other settings as in `generate_tokens`.
        """
        transformer = self._need_generator()
        single = images.ndim == 3
        batch = (images[None] if single else images).to(self.device)
        masks = one_mask_each(mask, batch)
        if self._is_larger(batch):
            result, anew = self._edit_large(batch, masks, batch_size, sampling)
        else:
            anew = token_mask(masks, transformer.grid)
            tokens = self.encode(batch, batch_size=batch_size).masked_fill(anew, UNKNOWN)
            tokens = self.generate_tokens(len(batch), start=tokens, batch_size=batch_size, **sampling)
            result = self.decode_tokens(tokens, batch_size=batch_size)
        keep = ~anew.any(dim=(1, 2))[:, None, None, None]
        if paste:
            keep = keep | ~marked_pixels(anew, self._cell)[:, None, : batch.shape[2], : batch.shape[3]]
        result = torch.where(keep, batch, result.to(batch))
        return result[0] if single else result

    def variations(
        self,
        images: Float[Tensor, "*n c H W"],
        *,
        strength: float = 0.75,
        seed: int = 0,
        batch_size: int = 64,
        **sampling: Any,
    ) -> Float[Tensor, "*n c H W"]:
        """Images like the given ones: a share `strength` of the tokens, at random, is drawn anew.

        Near 0 little changes, at 1 nothing but the sampler's settings (and a class) is left. As in `generate_tokens`.
        """
        single = images.ndim == 3
        tokens = self.mask_tokens(
            self.encode(images[None] if single else images, batch_size=batch_size), strength, seed
        )
        tokens = self.generate_tokens(len(tokens), start=tokens, seed=seed, batch_size=batch_size, **sampling)
        result = self.decode_tokens(tokens, batch_size=batch_size)
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
        return self.variations(
            images,
            strength=mask_ratio,
            seed=seed,
            steps=steps,
            choice_temperature=choice_temperature,
            token_temperature=token_temperature,
            encoder_keep=1.0,
            batch_size=batch_size,
        )

    def _is_larger(self, batch: Tensor) -> bool:
        """Whether images are larger than the model's; smaller ones raise ValueError where they are tokenized."""
        size = self.image_size
        return tuple(batch.shape[-2:]) != size and batch.shape[-2] >= size[0] and batch.shape[-1] >= size[1]

    @property
    def _cell(self) -> tuple[int, int]:
        """Pixels of a token, down and across."""
        (height, width), (rows, columns) = self.image_size, self.tokenizer.grid
        return height // rows, width // columns

    def _edit_large(
        self, batch: Tensor, masks: Tensor, batch_size: int, sampling: dict[str, Any]
    ) -> tuple[Float[Tensor, "n c H W"], Bool[Tensor, "n R C"]]:
        """Edited images, and which of their tokens were drawn anew; image k has its own stream in every window."""
        grid, cell, seed = self.transformer.grid, self._cell, sampling.pop("seed", 0)
        classes = sampling.pop("classes", None)
        if classes is not None:
            classes = class_numbers(classes, len(batch), self.transformer.config.num_classes, self.class_names).tolist()
        results, anew = [], []
        for index, (image, mask) in enumerate(zip(batch, masks, strict=True)):
            padded = pad_to_windows(image, grid, cell)
            marked = pad_to_windows(mask[None].float(), grid, cell)[0] > 0
            anew.append(token_mask(marked[None], (marked.shape[0] // cell[0], marked.shape[1] // cell[1]))[0])
            tokens = encode_large(padded, partial(self.encode, batch_size=batch_size), grid, cell)
            wanted = None if classes is None else [classes[index]]

            def fill(part: Tensor, number: int, index: int = index, wanted: Any = wanted) -> Tensor:
                own = rng.stream_seed(seed, "window", number)
                return self.generate_tokens(
                    1, start=part[None], seed=own, first_index=index, classes=wanted, **sampling
                )[0]  # fmt: skip

            tokens = fill_large(tokens.masked_fill(anew[-1], UNKNOWN), fill, grid)
            decoded = decode_large(tokens, partial(self.decode_tokens, batch_size=batch_size), grid, cell)
            results.append(decoded[:, : image.shape[1], : image.shape[2]])
        return torch.stack(results), torch.stack(anew)

    def mask_tokens(self, ids: Int[Tensor, "n h w"], mask_ratio: float, seed: int) -> Int[Tensor, "n h w"]:
        """Set ceil(mask_ratio x tokens) random tokens of each grid to -1; image k has the same noise at every ratio."""
        generators = [rng.generator(seed, "mask", index) for index in range(len(ids))]
        noise = rng.uniform_rows(generators, ids[0].numel(), like=ids)
        masked = mask_from_noise(noise, mask_ratio, drop_ratio=0).masked
        return ids.masked_fill(masked.view_as(ids), UNKNOWN)

    def save(self, path: str | Path) -> Path:
        """Write the model as a folder of safetensors and config.json; whole or not at all."""
        return store.write(self.parts, path)

    def _need_generator(self) -> MAGE:
        transformer = self._need_transformer()
        if not isinstance(transformer, MAGE):
            raise ValueError("this checkpoint holds an encoder only and cannot generate: it has no decoder")
        return transformer
