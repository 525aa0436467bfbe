"""Methods of pre-training: a registry of configurations, each of which builds its task.

A method is a subclass of `MethodConfig`, a frozen dataclass, registered under its name in the file of its task. A
recipe holds one of them as `method`. Other packages register theirs, or use the entry point group mage.methods.
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
    """What a run passes to a method to build its task."""

    model: MAGEConfig
    """Sizes of the encoder, and of the decoder if the method uses MAGE's."""
    source: Batches
    """Batches of "tokens" or "images", as the method reads, with "second" views if it contrasts pairs."""
    num_images: int
    optim: OptimConfig
    recipe: dict[str, Any]
    """The recipe as plain values, stored in the model folder."""
    seed: int
    validation: Tensor | None = None
    """Held-out token grids (n, *grid), or images (n, c, h, w) uint8."""
    watch: Watch | None = None
    grid: tuple[int, ...] = ()
    """For methods that read tokens."""
    num_codes: int = 0
    """For methods that read tokens."""
    tokenizer: Tokenizer | None = None
    image_size: tuple[int, int] = (0, 0)
    """For methods that read images."""
    channels: int = 0
    """For methods that read images."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    notes: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    """Classes that the network is conditioned on, if any."""
    precision: str = "float32"
    """Precision of tokenizing, if batches hold images."""

    @contextmanager
    def random_weights(self, name: str) -> Iterator[None]:
        """Context in which random weights depend only on the seed and `name`."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(rng.stream_seed(self.seed, f"{name} weights"))
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
    """Base class of all methods' configurations."""

    name: str = ""
    """Name of the method."""

    reads: ClassVar[Literal["tokens", "images"]] = "tokens"
    """Content of its batches."""
    pairs: ClassVar[bool] = False
    """Whether they hold two views of each image."""

    @classmethod
    def from_values(cls, values: Any, where: str) -> "MethodConfig":
        """The configuration that plain values describe; their "name" selects the method."""
        if not isinstance(values, dict) or not isinstance(values.get("name"), str):
            raise ValueError(f"{where} must be a mapping with a name among {', '.join(METHODS.names())}")
        return from_dict(METHODS.get(values["name"]), values, where=where)

    @property
    def class_conditions(self) -> ConditionConfig:
        """Class conditions of the network; none by default."""
        return ConditionConfig()

    def check(self, model: MAGEConfig) -> None:
        """Raise ValueError if the method cannot train a network of these sizes."""

    def build(self, inputs: MethodInputs) -> Task:
        """The task of a run."""
        raise NotImplementedError


METHODS: Registry[type[MethodConfig]] = Registry(kind="method", group="mage.methods")
