"""The model class: a tokenizer and a transformer that generate, edit and reconstruct images, and describe them.

Letters: n images, c channels, H W pixels, h w tokens.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage import rng
from mage.inputs import Images, Masks, as_images, as_mask
from mage.masking import mask_from_noise
from mage.nn.grids import rows_and_columns
from mage.pipeline import generating
from mage.pipeline.describing import Describing
from mage.pipeline.generating import OnBatch
from mage.pipeline.modes import evaluating
from mage.sampling.classes import NO_CLASS, Classes, class_numbers, drawn_classes
from mage.sampling.decode import UNKNOWN, OnStep
from mage.sampling.edit import marked_pixels, one_mask_each, token_mask
from mage.sampling.keywords import SamplingKeywords, with_sampling_keywords
from mage.sampling.settings import SamplingConfig
from mage.store import folder as store
from mage.tokenizers import Tokenizer


def load(
    path: str | Path, *, tokenizer: Tokenizer | None = None, revision: str | None = None,
    precision: str = "auto", device: str | torch.device = "auto", graphs: bool = False,
) -> "Mage":  # fmt: skip
    """Read a model: a folder, a run's folder, the name of a packaged model, or user/name of one on the Hub.

    A folder comes before a packaged name, and both before the Hub, which is asked for nothing else; hf://user/name is
    always the Hub's. Only config.json and safetensors files are downloaded, and their hashes are checked. Raises
    ValueError if there is no such model, ConnectionError if the Hub cannot be reached and the cache does not have it.

    tokenizer: your own, for a model that was trained on its tokens; without it such a model works on tokens only.
    revision: branch, tag or commit of a model on the Hub, which user/name@revision gives as well.
    precision: "auto", "float32" or "bf16"; device: "auto", "cpu", "cuda", "cuda:1", "mps".
    graphs: on a GPU, replay encoding, decoding and the sampler's passes as CUDA graphs, with the weights as they are
    when first used; off until its gain has been measured.
    """
    parts = store.read(path, tokenizer=tokenizer, revision=revision)
    return Mage.of(parts, precision=precision, device=device, graphs=graphs)


class Mage(Describing):
    """A tokenizer, a transformer, and the recipe they were trained with.

    Images are taken as float tensors in [0, 1], uint8 tensors and arrays, PIL images, paths, lists of these, or a
    folder (see `mage.inputs`). Results are ordinary tensors on the model's device. Every method computes in evaluation
    mode and without gradients; `tokenizer` and `transformer` are ordinary modules to train, move and compile.
    """

    @with_sampling_keywords
    def generate(
        self,
        n: int,
        *,
        classes: Classes = None,
        seed: int = 0,
        first_index: int = 0,
        batch_size: int = 64,
        on_batch: OnBatch | None = None,
        on_step: OnStep | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Float[Tensor, "n c H W"]:
        """`n` new images, float in [0, 1].

        classes: one for all or one per image, by number or name; "none" or -1: without class. Default: a model with
        classes draws the class of each image, with the frequency in its training images.
        first_index: number of the first image; image k of a seed does not depend on the batch.
        on_batch: called with the number of images finished since the last call.
        on_step: called before each step of a batch with the step's number, from 0, and the batch's token grids so far
        of shape (b, h, w), -1 = unknown; what it raises ends the work.
        """
        tokens = self.generate_tokens(
            n,
            classes=classes,
            seed=seed,
            first_index=first_index,
            batch_size=batch_size,
            on_batch=on_batch,
            on_step=on_step,
            **sampling,
        )
        return self.decode_tokens(tokens, batch_size=batch_size)

    @with_sampling_keywords
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
        on_step: OnStep | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Int[Tensor, "n *grid"]:
        """`n` token grids by iterative decoding (section 3.2), without their pixels.

        start: grids `(n, *grid)` to complete, -1 = unknown; default all unknown. Other arguments as of `generate`.
        """
        network = self.require_generator()
        if n < 1 or batch_size < 1:
            raise ValueError(f"the number of images and the batch size must be positive, not {n} and {batch_size}")
        settings = self.check_generation(classes, **sampling)
        grids = generating.starting_grids(network, n, start, self.device)
        indices = range(first_index, first_index + n)
        wanted = None
        if classes is not None:
            wanted = class_numbers(classes, n, network.config.num_classes, self.class_names)
            wanted = None if bool((wanted == NO_CLASS).all()) else wanted  # nothing to guide to
        elif start is None and self.notes.get("class_shares"):  # known tokens already determine the class
            wanted = drawn_classes(self.notes["class_shares"], seed, indices)
        with evaluating(network):
            tokens = generating.complete(
                network,
                grids,
                settings,
                indices=indices,
                seed=seed,
                batch_size=batch_size,
                classes=wanted,
                precision=self.precision,
                on_batch=on_batch,
                on_step=on_step,
                everywhere=self._recorded_pass(),
            )
        return tokens.view(n, *network.grid)

    def check_generation(self, classes: Classes = None, **sampling: Unpack[SamplingKeywords]) -> SamplingConfig:
        """The sampler's settings with the changes that are not None. Raises ValueError if the model cannot use them."""
        network = self.require_generator()
        settings = generating.changed_settings(self.sampling, sampling)
        generating.check_generation(network, settings, classes, self.class_names)
        return settings

    @with_sampling_keywords
    def edit(
        self,
        images: Images,
        mask: Masks,
        *,
        paste: bool = False,
        classes: Classes = None,
        seed: int = 0,
        batch_size: int = 64,
        on_step: OnStep | None = None,
        on_tokens: Callable[[int], None] | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Float[Tensor, "*n c H W"]:
        """Redraw the marked part of each image: inpaint, outpaint, uncrop, change the class (section 4.5).

        mask: True (white) = redraw; one for all images, or one per image. A token with a marked pixel is redrawn.
        paste: keep the pixels of other tokens exactly as given; otherwise they pass through the tokenizer.
        An image without marked pixels is returned unchanged. Images larger than the model's are edited in sliding
        windows. A single image, not in a list, gives a single image. Other arguments as of `generate`.
        on_tokens: called with the number of tokens redrawn since the last call.
        """
        network, tell = self.require_generator(), on_tokens or (lambda _: None)
        inputs = as_images(images, size=self.image_size, channels=self.channels, resize=False)
        batch = inputs.pixels.to(self.device)
        height, width = batch.shape[-2:]
        masks = one_mask_each(as_mask(mask, (height, width)), batch)
        grid, cell = rows_and_columns(self.require_tokenizer().grid, "a mask of pixels"), self.token_size
        if self._is_larger(batch):
            numbers = None
            if classes is not None:
                numbers = class_numbers(classes, len(batch), network.config.num_classes, self.class_names).tolist()

            def fill_window(part: Tensor, index: int, window: int) -> Tensor:
                own = rng.stream_seed(seed, "window", window)
                wanted = None if numbers is None else [numbers[index]]
                drawn = self.generate_tokens(
                    1, start=part[None], seed=own, first_index=index, classes=wanted, on_step=on_step, **sampling
                )[0]  # fmt: skip
                tell(int((part == UNKNOWN).sum()))
                return drawn

            encode = partial(self.encode, batch_size=batch_size)
            decode = partial(self.decode_tokens, batch_size=batch_size)
            result, redrawn = generating.edit_large(
                batch, masks, grid, cell, encode=encode, decode=decode, fill_window=fill_window
            )
        else:
            redrawn = token_mask(masks, grid)
            tokens = self.encode(batch, batch_size=batch_size).masked_fill(redrawn, UNKNOWN)
            tokens = self.generate_tokens(
                len(batch),
                start=tokens,
                classes=classes,
                seed=seed,
                batch_size=batch_size,
                on_step=on_step,
                **sampling,
            )
            tell(int(redrawn.sum()))
            result = self.decode_tokens(tokens, batch_size=batch_size)
        keep = ~redrawn.any(dim=(1, 2))[:, None, None, None]
        if paste:
            keep = keep | ~marked_pixels(redrawn, cell)[:, None, :height, :width]
        result = torch.where(keep, batch, result.to(batch))
        return result[0] if inputs.single else result

    @with_sampling_keywords
    def variations(
        self,
        images: Images,
        *,
        strength: float = 0.75,
        classes: Classes = None,
        seed: int = 0,
        batch_size: int = 64,
        on_step: OnStep | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Float[Tensor, "*n c H W"]:
        """Variations of images: a random share `strength` of their tokens is redrawn.

        Near 0 little changes; at 1 nothing of the image is kept. Other arguments as of `generate`. Raises ValueError
        for a strength outside of [0, 1].
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"the strength of variations (--vary) must lie in [0, 1], not {strength:g}")
        inputs = self._images(images)
        tokens = self.mask_tokens(self.encode(inputs.pixels, batch_size=batch_size), strength, seed)
        tokens = self.generate_tokens(
            len(tokens),
            start=tokens,
            classes=classes,
            seed=seed,
            batch_size=batch_size,
            on_step=on_step,
            **sampling,
        )
        result = self.decode_tokens(tokens, batch_size=batch_size)
        return result[0] if inputs.single else result

    def reconstruct(
        self,
        images: Images,
        *,
        mask_ratio: float = 0.75,
        seed: int = 0,
        steps: int = 1,
        choice_temperature: float = 0.0,
        token_temperature: float = 0.0,
        batch_size: int = 64,
    ) -> Float[Tensor, "*n c H W"]:
        """Mask a random share of the tokens and predict them from the rest (the paper's figure 2).

        steps=1 is one pass with the most probable codes. Nothing is dropped, revised or reused, whatever the model's
        own sampler does: the encoder sees every mask token.
        """
        return self.variations(
            images,
            strength=mask_ratio,
            seed=seed,
            steps=steps,
            choice_temperature=choice_temperature,
            token_temperature=token_temperature,
            token_temperature_end=token_temperature,
            encoder_keep=1.0,
            order="confidence",
            reuse=1,
            revisions=0,
            batch_size=batch_size,
        )

    def mask_tokens(self, ids: Int[Tensor, "n *grid"], mask_ratio: float, seed: int) -> Int[Tensor, "n *grid"]:
        """Set ceil(mask_ratio x tokens) random tokens of each grid to -1; image k has the same noise at every ratio."""
        generators = [rng.generator(seed, "mask", index) for index in range(len(ids))]
        noise = rng.uniform_rows(generators, ids[0].numel(), like=ids)
        masked = mask_from_noise(noise, mask_ratio, drop_ratio=0).masked
        return ids.masked_fill(masked.view_as(ids), UNKNOWN)

    def _is_larger(self, batch: Tensor) -> bool:
        """Whether images are larger than the model's; smaller ones raise ValueError when they are tokenized."""
        size = self.image_size
        return tuple(batch.shape[-2:]) != size and batch.shape[-2] >= size[0] and batch.shape[-1] >= size[1]
