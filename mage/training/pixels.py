"""Pre-training of the baselines on pixels, MAE and SimCLR, with the same training loop as MAGE."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mage import images, rng
from mage.data.batches import Batches
from mage.data.colour import ColourConfig, colour_draws, colour_jitter
from mage.masking import Mask, mask_from_noise
from mage.models.contrastive import ContrastConfig, agreement
from mage.models.mae import MAE, MAEConfig
from mage.models.pixels import PatchEncoder
from mage.models.simclr import SimCLR
from mage.nn.grids import area
from mage.share import Turn
from mage.store import folder as store
from mage.store.parts import ModelParts
from mage.training.contrastive import CONTRASTED
from mage.training.method import METHODS, MethodConfig, MethodInputs
from mage.training.optim import OptimConfig
from mage.training.task import Loss, Observation, Reading, Task, Watch


class PixelPretraining(Task):
    """Base class of methods on pixels: batches of images in, an encoder out."""

    def __init__(
        self,
        objective: nn.Module,
        source: Batches,
        *,
        num_images: int,
        optim: OptimConfig,
        recipe: dict[str, Any],
        seed: int,
        validation: Tensor,
        watch: Watch | None = None,
    ) -> None:
        """source: where batches of "images" (and "second") come from. validation: images (n, c, h, w), uint8."""
        super().__init__("mage", objective, source, optim, num_images=num_images)
        self._recipe, self._seed = recipe, seed
        self._validation, self._watch = validation, watch

    def validation_loss(self, objective: nn.Module, pixels: Tensor, index: int) -> float:
        """The loss on held-out images in [0, 1], with the randomness of batch `index`."""
        raise NotImplementedError

    def observe(self, modules: Mapping[str, nn.Module]) -> Observation:
        """Loss on held-out images, and the watch's metrics."""
        objective = modules["mage"]
        metrics = {} if self._watch is None else self._watch(objective.encoder)
        device = next(objective.parameters()).device
        total = 0.0
        for index, part in enumerate(self._validation.split(256)):
            total += self.validation_loss(objective, images.to_float(part.to(device)), index) * len(part)
        return Observation(metrics | {"valid/loss": total / len(self._validation)})

    def export(self, modules: Mapping[str, nn.Module], folder: Path) -> None:
        """Write the averaged encoder as a model folder, without decoder and projection."""
        encoder = modules["mage"].encoder
        assert isinstance(encoder, PatchEncoder)
        store.write(ModelParts(None, encoder, self._recipe), folder)


class LossOf(nn.Module):
    """A network whose forward pass returns its loss, so that DDP wraps a single forward pass."""

    def __init__(self, network: MAE) -> None:
        super().__init__()
        self.network = network

    @property
    def encoder(self) -> nn.Module:
        """The encoder, which is exported."""
        return self.network.encoder

    def forward(self, pixels: Tensor, mask: Mask) -> Tensor:
        """Loss of a batch of images."""
        return self.network.loss(pixels, mask)


class MAEPretraining(PixelPretraining):
    """MAE: one view, three quarters of it left out."""

    def __init__(self, network: MAE, source: Batches, **more: Any) -> None:
        super().__init__(LossOf(network), source, **more)
        self.frozen = (network.encoder.position,)  # fine-tuning learns it
        self._ratio, self._length = network.config.mask_ratio, area(network.encoder.grid)

    def losses(self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], turn: Turn) -> Iterator[Loss]:
        """Squared error of the left-out patches."""
        pixels = images.to_float(batch["images"])
        noise = torch.rand(turn.share.batch_size, self._length, generator=rng.generator(self._seed, "mask", turn.step))
        yield Loss("mage", modules["mage"](pixels, self._mask(turn.take(noise)).to(pixels.device)))

    def validation_loss(self, objective: nn.Module, pixels: Tensor, index: int) -> float:
        """The loss with fixed masks."""
        noise = torch.rand(len(pixels), self._length, generator=rng.generator(self._seed, "validation mask", index))
        mask = self._mask(noise)
        return float(objective(pixels, mask.to(pixels.device)))

    def _mask(self, noise: Tensor) -> Mask:
        return mask_from_noise(noise, self._ratio, drop_ratio=self._ratio)


class SimCLRPretraining(PixelPretraining):
    """SimCLR: two views with different crops and colours."""

    of_parts = CONTRASTED

    def __init__(self, network: SimCLR, source: Batches, *, colour: ColourConfig, **more: Any) -> None:
        super().__init__(network, source, **more)
        self._network, self._colour = network, colour

    def losses(self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], turn: Turn) -> Iterator[Loss]:
        """NT-Xent between the views."""
        pixels = images.to_float(torch.cat([batch["images"], batch["second"]]))
        whole = colour_draws(2 * turn.share.batch_size, rng.generator(self._seed, "colour", turn.step))
        draws = torch.cat([turn.take(view, dim=1) for view in whole.chunk(2, dim=1)], dim=1)
        first, second = self._vectors(modules["mage"], pixels, draws)
        readings = {"view_agreement": Reading(agreement(first.detach(), second.detach()))}
        yield Loss("mage", self._network.loss(first, second), readings)

    def validation_loss(self, objective: nn.Module, pixels: Tensor, index: int) -> float:
        """The loss between an image and its mirror image, with different colours."""
        draws = colour_draws(2 * len(pixels), rng.generator(self._seed, "validation colour", index))
        first, second = self._vectors(objective, torch.cat([pixels, pixels.flip(-1)]), draws)
        return float(self._network.loss(first, second))

    def _vectors(self, objective: nn.Module, pixels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        if pixels.shape[1] == 3:
            pixels = colour_jitter(pixels, self._colour, draws)
        first, second = objective(pixels).chunk(2)
        return first, second


def pixel_settings(inputs: MethodInputs) -> dict[str, Any]:
    """Keywords of PixelPretraining that follow from a run."""
    return dict(
        num_images=inputs.num_images,
        optim=inputs.optim,
        recipe=inputs.recipe,
        seed=inputs.seed,
        validation=inputs.validation,
        watch=inputs.watch,
    )


@METHODS.register("mae")
@dataclass(frozen=True)
class MAEMethod(MethodConfig):
    """MAE: pixels of left-out patches are predicted (He et al. 2022)."""

    name: str = "mae"
    """Name of the method."""
    patch_size: int = 16
    """Pixels per side of a patch."""
    mae: MAEConfig = field(default_factory=MAEConfig)
    """Decoder and mask."""

    reads: ClassVar[Literal["tokens", "images"]] = "images"

    def build(self, inputs: MethodInputs) -> Task:
        """The task of a run."""
        with inputs.random_weights("mae"):
            network = MAE(inputs.patch_encoder(self.patch_size), self.mae)
        return MAEPretraining(network, inputs.source, **pixel_settings(inputs))


@METHODS.register("simclr")
@dataclass(frozen=True)
class SimCLRMethod(MethodConfig):
    """SimCLR: two strongly augmented views attract each other (Chen et al. 2020)."""

    name: str = "simclr"
    """Name of the method."""
    patch_size: int = 16
    """Pixels per side of a patch."""
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    """The contrastive loss."""
    colour: ColourConfig = field(default_factory=ColourConfig)
    """Colour jitter of the views."""

    reads: ClassVar[Literal["tokens", "images"]] = "images"
    pairs: ClassVar[bool] = True

    def build(self, inputs: MethodInputs) -> Task:
        """The task of a run."""
        with inputs.random_weights("simclr"):
            network = SimCLR(inputs.patch_encoder(self.patch_size), self.contrast)
        return SimCLRPretraining(network, inputs.source, colour=self.colour, **pixel_settings(inputs))
