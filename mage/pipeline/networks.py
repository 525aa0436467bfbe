"""Base class of the model: its two networks, their device and precision, encoding and decoding.

Letters: n images, c channels, H W pixels, h w tokens.
"""

import tempfile
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mage import device as device_policy
from mage.inputs import ImageBatch, Images, ImageTransform, as_images
from mage.models import MAGEClassifier, MAGETransformer, PatchClassifier, PatchEncoder, Transformer
from mage.nn.blocks import choose_attention
from mage.nn.graphed import graphed
from mage.nn.grids import rows_and_columns
from mage.pipeline.modes import evaluating, in_batches
from mage.sampling.generator import ScoreAll, scores_everywhere
from mage.store import folder as store
from mage.store import hub
from mage.store.hub_names import name_to_write
from mage.store.model_card import CardFacts, card_of
from mage.store.parts import ModelParts
from mage.tokenizers import Tokenizer

Model = TypeVar("Model", bound="Networks")


class Networks:
    """A tokenizer and a transformer, either of which may be missing, with their recipe and notes."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        transformer: Transformer | None,
        *,
        recipe: dict[str, Any] | None = None,
        notes: dict[str, Any] | None = None,
        precision: str = "auto",
        device: str | torch.device = "auto",
        graphs: bool = False,
    ) -> None:
        """precision: "auto", "float32" or "bf16"; device: "auto", "cpu", "cuda". Raises ValueError if they disagree.

        The networks are moved to the device. notes: of the training, such as class names. graphs: see `mage.load`.
        """
        self._tokenizer, self._transformer = tokenizer, transformer
        self.graphs = graphs
        self.recipe, self.notes = recipe or {}, notes or {}
        self._policy = precision
        self.to(device)
        if tokenizer is not None and isinstance(transformer, MAGETransformer | MAGEClassifier):
            words = (transformer.vocabulary.num_codes, tuple(transformer.grid))
            if words != (tokenizer.num_codes, tuple(tokenizer.grid)):
                raise ValueError(
                    f"the tokenizer has {tokenizer.num_codes} codes on a grid of {tuple(tokenizer.grid)}, "
                    f"the transformer {words[0]} on {words[1]}; give the tokenizer that it was trained with"
                )

    @classmethod
    def of(
        cls: type[Model],
        parts: ModelParts,
        *,
        precision: str = "auto",
        device: str | torch.device = "auto",
        graphs: bool = False,
    ) -> Model:
        """The model made of these parts, its networks in evaluation mode."""
        for module in (parts.tokenizer, parts.transformer):
            if isinstance(module, nn.Module):
                module.eval()
        return cls(
            parts.tokenizer,
            parts.transformer,
            recipe=parts.recipe,
            notes=parts.notes,
            precision=precision,
            device=device,
            graphs=graphs,
        )

    @property
    def parts(self) -> ModelParts:
        """The model's networks, recipe and notes."""
        return ModelParts(self._tokenizer, self._transformer, self.recipe, self.notes)

    def save(self, path: str | Path) -> Path:
        """Write the model as a folder of safetensors and config.json, atomically."""
        return store.write(self.parts, path)

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        card: CardFacts | None = None,
    ) -> str:
        """Upload the model to the Hugging Face Hub, with a card; returns the address of the commit.

        name: user/name; a missing model is made, private or not (None: as the account's settings say). revision: a
        branch, made if it is missing. card: what its card says beyond what the model knows, such as the licence.
        Raises ValueError for another name and without permission to write, ConnectionError without a connection.
        """
        shared = name_to_write(name, revision)
        with tempfile.TemporaryDirectory() as temporary:
            folder = store.write(self.parts, Path(temporary) / "model")
            hub.prepare(folder, card_of(shared.model, self.parts, card or CardFacts(), loaded_by=str(shared)))
            return hub.push(folder, shared, private=private, commit_message=commit_message)

    def to(self: Model, device: str | torch.device) -> Model:
        """The same model, its networks moved to `device`; returns itself, as modules do.

        The precision "auto" is chosen anew.
        """
        self.device = device_policy.resolve_device(device)
        self.precision = device_policy.resolve(self._policy, self.device)
        for module in (self._tokenizer, self._transformer):
            if isinstance(module, nn.Module):
                module.to(self.device)
                choose_attention(module, self.device)
        if self._tokenizer is not None:  # graphs of the weights' old places are dropped
            self._encode = graphed(self._tokenizer.encode, self.device, enabled=self.graphs)
            self._decode = graphed(self._tokenizer.decode, self.device, enabled=self.graphs)
        self._pass: ScoreAll | None = None
        return self

    def _recorded_pass(self) -> ScoreAll | None:
        """The sampler's pass as graphs, of the weights as they are at its first use; None without graphs."""
        if self.graphs and self.device.type == "cuda" and self._pass is None:
            network = device_policy.cast_for_inference(self.require_generator(), self.precision)
            self._pass = graphed(partial(scores_everywhere, network), self.device, enabled=True)
        return self._pass

    def __repr__(self) -> str:
        images = ""
        if self._tokenizer is not None or self._patches() is not None:
            images = f", images {self.channels} x {self.image_size[0]} x {self.image_size[1]}"
        sizes = []
        for name, module in (("tokenizer", self._tokenizer), ("transformer", self._transformer)):
            if isinstance(module, nn.Module):
                count = sum(parameter.numel() for parameter in module.parameters())
                sizes.append(f"{name} {type(module).__name__} of {count / 1e6:.2f} M parameters")
            elif module is not None:
                sizes.append(f"{name} {type(module).__name__}")
        return f"{type(self).__name__}({', '.join(sizes)}{images}, {self.precision} on {self.device})"

    @property
    def tokenizer(self) -> Tokenizer | None:
        """encode(images) -> ids (n, h, w); decode(ids) -> images. None if this model has none."""
        return self._tokenizer

    @property
    def transformer(self) -> Transformer | None:
        """The MAGE network, an encoder with a classifier, the pixel encoder of a baseline, or None."""
        return self._transformer

    def require_tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises ValueError if this model has none."""
        if self._tokenizer is None:
            raise ValueError("this model has no tokenizer, so it takes tokens, not images: load it with tokenizer=")
        return self._tokenizer

    def require_transformer(self) -> Transformer:
        """The transformer. Raises ValueError if this model has none."""
        if self._transformer is None:
            raise ValueError("this is a tokenizer without a transformer; `mage pretrain` trains one on its tokens")
        return self._transformer

    def require_generator(self) -> MAGETransformer:
        """The transformer, if it can generate. Raises ValueError if it cannot."""
        transformer = self.require_transformer()
        if not isinstance(transformer, MAGETransformer):
            raise ValueError("this checkpoint holds an encoder only and cannot generate: take a pre-trained MAGE model")
        return transformer

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        patches = self._patches()
        return self.require_tokenizer().image_size if patches is None else patches.config.image_size

    @property
    def token_size(self) -> tuple[int, int]:
        """Height and width of the part of an image that one token stands for, in pixels. Raises ValueError without."""
        rows, columns = rows_and_columns(self.require_tokenizer().grid, "a token's size")
        return self.image_size[0] // rows, self.image_size[1] // columns

    @property
    def channels(self) -> int:
        """Channels of an image."""
        patches = self._patches()
        return self.require_tokenizer().channels if patches is None else patches.config.channels

    @property
    def transform(self) -> ImageTransform:
        """Transform for a DataLoader: from files or PIL images to the model's input."""
        return ImageTransform(self.image_size, self.channels)

    def autocast(self) -> AbstractContextManager[object]:
        """The context that applies this model's precision."""
        return device_policy.autocast(self.precision, self.device)

    def encode(self, images: Images, *, batch_size: int = 64) -> Int[Tensor, "n h w"]:
        """Images -> ids, in batches, on the model's device."""
        tokenizer = self.require_tokenizer()
        pixels = self._images(images).pixels
        with evaluating(tokenizer):
            return in_batches(pixels, batch_size, self._encode, self.precision, self.device)

    def decode_tokens(self, ids: Int[Tensor, "n h w"], *, batch_size: int = 64) -> Float[Tensor, "n c H W"]:
        """Ids -> images in [0, 1], in batches, on the model's device. Raises ValueError for ids that are no codes."""
        tokenizer = self.require_tokenizer()
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < tokenizer.num_codes:
            raise ValueError(
                f"ids run from {int(ids.min())} to {int(ids.max())}, and codes from 0 to {tokenizer.num_codes - 1}: "
                "unknown tokens (-1) have no picture"
            )
        with evaluating(tokenizer):
            return in_batches(ids, batch_size, self._decode, self.precision, self.device)

    def _images(self, images: Images) -> ImageBatch:
        return as_images(images, size=self.image_size, channels=self.channels, resize=True)

    def _patches(self) -> PatchEncoder | PatchClassifier | None:
        """The transformer, if it takes images and not tokens."""
        return self._transformer if isinstance(self._transformer, PatchEncoder | PatchClassifier) else None
