"""A benchmark's job: the library's and other implementations, on the same model and images."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mage.models import MAGETransformer
from mage.pipeline import Mage
from mage.tokenizers import VQGAN

OURS = "ours"


@dataclass(frozen=True)
class Work:
    """One job on `images` images per call."""

    name: str
    images: int
    ways: dict[str, Callable[[], object]]
    """Implementations by name: "ours", "plain", ...; the first is the library's."""
    ceiling: Literal["matmul", "conv3x3"] = "matmul"
    """Kind of most of its arithmetic."""


@dataclass(frozen=True)
class Bench:
    """A model with random weights, and a batch for it."""

    model: Mage
    plain: Mage
    """The same weights for the plain baseline: in float32 and PyTorch's default layout."""
    images: Float[Tensor, "n c H W"]
    """In [0, 1], on the model's device."""
    steps: int
    """Decoding steps of one generated image."""
    folder: Path
    """Temporary folder for files; removed afterwards."""
    stack: ExitStack = field(default_factory=ExitStack)
    """Contexts that are closed after the benchmark."""

    @property
    def batch(self) -> int:
        """Images per call."""
        return len(self.images)

    def tokens(self) -> Int[Tensor, "n l"]:
        """Tokens of the batch."""
        ids: Tensor = self.model.encode(self.images, batch_size=self.batch).flatten(1)
        return ids.clone()

    @property
    def plain_network(self) -> MAGETransformer:
        """The transformer of the plain baseline."""
        return self.plain.require_generator()

    @property
    def plain_tokenizer(self) -> VQGAN:
        """The tokenizer of the plain baseline."""
        return vqgan_of(self.plain)

    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device


def vqgan_of(model: Mage) -> VQGAN:
    """The tokenizer of a model that was built with random weights."""
    tokenizer = model.tokenizer
    assert isinstance(tokenizer, VQGAN)
    return tokenizer
