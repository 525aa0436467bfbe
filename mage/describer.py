"""A tokenizer and a transformer that describe images: features, dense features, class scores, tokens.

Letters: n images, c channels, H W pixels, h w tokens, d feature width, k classes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mage import device as device_policy
from mage.models import MAGE, Classifier, MAGEClassifier, PatchClassifier, PatchEncoder, Transformer
from mage.models.intermediates import MapFormat, intermediates
from mage.models.mage import Pool
from mage.nn.blocks import choose_attention
from mage.tokenizers import Tokenizer


class Describer:
    """Holds the networks on their device in their precision, and looks at images with them."""

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
        self.device = device_policy.resolve_device(device)
        self.precision = device_policy.resolve(precision, self.device)
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

    def to(self, device: str | torch.device) -> "Describer":
        """The same model, its networks moved to `device`; returns itself, as modules do."""
        self.device = device_policy.resolve_device(device)
        for module in (self._tokenizer, self._transformer):
            if isinstance(module, nn.Module):
                module.to(self.device)
                choose_attention(module, self.device)
        return self

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

    def autocast(self) -> Any:
        """The context that applies this model's precision."""
        return device_policy.autocast(self.precision, self.device)

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
