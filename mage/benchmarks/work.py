"""A benchmark's job: the library's and other implementations, on the same model and images."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
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
    """Implementations by name: "ours", "plain", ...; FLOPs are counted of the first, which is the library's but for
    anchors."""
    ceiling: Literal["matmul", "conv3x3"] = "matmul"
    """Kind of most of its arithmetic."""

    @property
    def first(self) -> str:
        """Name of the first way."""
        return next(iter(self.ways))


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


def own_ways(bench: Bench, job: Callable[[Mage], object]) -> dict[str, Callable[[], object]]:
    """The library's way of doing a job; on a GPU with CUDA graphs, too."""
    model = bench.model
    ways: dict[str, Callable[[], object]] = {OURS: partial(job, model)}
    if bench.device().type == "cuda":
        replayed = Mage.of(model.parts, precision=model.precision, device=model.device, graphs=True)
        ways[f"{OURS}_graphs"] = partial(job, replayed)
    return ways


def vqgan_of(model: Mage) -> VQGAN:
    """The tokenizer of a model that was built with random weights."""
    tokenizer = model.tokenizer
    assert isinstance(tokenizer, VQGAN)
    return tokenizer
