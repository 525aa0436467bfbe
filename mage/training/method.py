"""Methods of pre-training: one registry, in which each has a configuration that builds its task.

A method is a frozen dataclass below `MethodConfig`, registered under its name; it stands beside its task. A recipe
holds one of them as `method`. Strangers register theirs, or name them under the entry point group mage.methods.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mage import rng
from mage.data.batches import Batches
from mage.models import MAGEConfig, PatchEncoderConfig
from mage.registry import Registry
from mage.sampling.settings import SamplingConfig
from mage.settings import from_dict
from mage.tokenizers import Tokenizer
from mage.training.conditions import ConditionConfig
from mage.training.optim import OptimConfig
from mage.training.task import Task, Watch


@dataclass(frozen=True)
class MethodInputs:
    """What a run has ready when it asks a method for its task."""

    model: MAGEConfig
    """Sizes of the encoder, and of the decoder where the method has MAGE's."""
    source: Batches
    """Batches of "tokens" or "images", as the method reads, with "second" views if it contrasts pairs."""
    num_images: int
    optim: OptimConfig
    recipe: dict[str, Any]
    """Kept in the model folder."""
    seed: int
    validation: Tensor | None = None
    """Held-out token grids (n, *grid), or images (n, c, h, w) uint8."""
    watch: Watch | None = None
    grid: tuple[int, ...] = ()
    """Of methods that read tokens."""
    num_codes: int = 0
    """Of methods that read tokens."""
    tokenizer: Tokenizer | None = None
    image_size: tuple[int, int] = (0, 0)
    """Of methods that read images."""
    channels: int = 0
    """Of methods that read images."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    notes: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    """Classes that the network learns, if `conditions` ask for some."""
    precision: str = "float32"
    """In which images are tokenized, where batches hold images."""

    @contextmanager
    def random_weights(self, name: str) -> Iterator[None]:
        """Weights that are made inside follow from the seed and `name` alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.stream_seed(self.seed, f"{name} weights"))
            yield

    def patch_encoder(self, patch_size: int) -> PatchEncoderConfig:
        """MAGE's encoder sizes on patches of the images, for methods that read images."""
        return PatchEncoderConfig(
            image_size=self.image_size,
            channels=self.channels,
            patch_size=patch_size,
            width=self.model.width,
            depth=self.model.depth,
            heads=self.model.heads,
            mlp_ratio=self.model.mlp_ratio,
        )


@dataclass(frozen=True)
class MethodConfig:
    """What all methods' configurations have."""

    name: str = ""
    """Name of the method."""

    reads: ClassVar[Literal["tokens", "images"]] = "tokens"
    """What its batches hold."""
    pairs: ClassVar[bool] = False
    """Whether they hold two views of each image."""

    @classmethod
    def from_values(cls, values: Any, where: str) -> "MethodConfig":
        """The configuration that plain values describe; "name" says which method's."""
        if not isinstance(values, dict) or not isinstance(values.get("name"), str):
            raise ValueError(f"{where} must be a mapping with a name, one of {', '.join(METHODS.names())}")
        return from_dict(METHODS.get(values["name"]), values, where=where)

    @property
    def class_conditions(self) -> ConditionConfig:
        """Classes that the network is told, of methods that tell some."""
        return ConditionConfig()

    def check(self, model: MAGEConfig) -> None:
        """Raise ValueError where the method cannot train a network of these sizes."""

    def build(self, inputs: MethodInputs) -> Task:
        """The task of a run."""
        raise NotImplementedError


METHODS: Registry[type[MethodConfig]] = Registry(kind="method", group="mage.methods")
