"""Pre-training the rivals that see pixels, MAE and SimCLR, on the loop that trains MAGE."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mage import images, rng
from mage.data.colour import ColourConfig, colour_jitter
from mage.masking import Mask, mask_from_noise
from mage.models.contrastive import agreement
from mage.models.mae import MAE
from mage.models.pixels import PatchEncoder
from mage.models.simclr import SimCLR
from mage.training.optim import OptimConfig
from mage.training.pretrain import TokenBatches, Watch, write_model
from mage.training.task import Loss, Observation


class PixelPretraining(ABC):
    """What both have in common: batches of images in, an encoder out."""

    def __init__(
        self,
        objective: nn.Module,
        source: TokenBatches,
        *,
        num_images: int,
        optim: OptimConfig,
        recipe: dict[str, Any],
        seed: int,
        validation: Tensor,
        watch: Watch | None = None,
    ) -> None:
        """source: where batches of "images" (and "second") come from. validation: images (n, c, h, w), uint8."""
        self.modules: dict[str, nn.Module] = {"mage": objective}
        self.frozen: tuple[nn.Module, ...] = ()
        self.optim = {"mage": optim}
        self.batch_size, self.steps = optim.batch_size, optim.num_steps(num_images)
        self._source, self._recipe, self._seed = source, recipe, seed
        self._validation, self._watch = validation, watch

    def batches(self, start: int, *, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """This process's batches from number `start` on."""
        return self._source(start, rank, world_size)

    @abstractmethod
    def losses(
        self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], *, number: int, rank: int
    ) -> Iterator[Loss]:
        """The loss of one batch."""

    @abstractmethod
    def validation_loss(self, objective: nn.Module, pixels: Tensor, index: int) -> float:
        """The loss on held-out images in [0, 1], with the randomness of batch `index`."""

    def observe(self, modules: Mapping[str, nn.Module], *, pictures: bool) -> Observation:
        """Loss on held-out images, and what the watch finds."""
        objective = modules["mage"]
        metrics = {} if self._watch is None else self._watch(objective.encoder)
        device = next(objective.parameters()).device
        total = 0.0
        for index, part in enumerate(self._validation.split(256)):
            total += self.validation_loss(objective, images.to_float(part.to(device)), index) * len(part)
        return Observation(metrics | {"valid/loss": total / len(self._validation)})

    def export(self, modules: Mapping[str, nn.Module], folder: Path) -> None:
        """Write the averaged encoder as a model folder; decoder and projection stay behind."""
        encoder = modules["mage"].encoder
        assert isinstance(encoder, PatchEncoder)
        write_model(None, encoder, self._recipe, {}, folder)

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Nothing is known to go wrong silently."""
        return []

    def state(self) -> dict[str, Any]:
        """Nothing beyond the network."""
        return {}


class LossOf(nn.Module):
    """A network whose forward is its loss, as one module, so that wrappers for many processes see a single forward."""

    def __init__(self, network: MAE) -> None:
        super().__init__()
        self.network = network

    @property
    def encoder(self) -> nn.Module:
        """What is kept."""
        return self.network.encoder

    def forward(self, pixels: Tensor, mask: Mask) -> Tensor:
        """Loss of a batch of images."""
        return self.network.loss(pixels, mask)


class MAEPretraining(PixelPretraining):
    """MAE: one view, three quarters of it left out."""

    def __init__(self, network: MAE, source: TokenBatches, **more: Any) -> None:
        super().__init__(LossOf(network), source, **more)
        self._ratio, self._length = network.config.mask_ratio, network.encoder.grid[0] * network.encoder.grid[1]

    def losses(
        self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], *, number: int, rank: int
    ) -> Iterator[Loss]:
        """Squared error of the left-out patches."""
        pixels = images.to_float(batch["images"])
        mask = self._mask(len(pixels), rng.generator(self._seed, "mask", number, rank))
        yield Loss("mage", modules["mage"](pixels, mask.to(pixels.device)), {})

    def validation_loss(self, objective: nn.Module, pixels: Tensor, index: int) -> float:
        """Under fixed masks."""
        mask = self._mask(len(pixels), rng.generator(self._seed, "validation mask", index))
        return float(objective(pixels, mask.to(pixels.device)))

    def _mask(self, count: int, generator: torch.Generator) -> Mask:
        noise = torch.rand(count, self._length, generator=generator)
        return mask_from_noise(noise, self._ratio, drop_ratio=self._ratio)


class SimCLRPretraining(PixelPretraining):
    """SimCLR: two views, cut and coloured differently."""

    def __init__(self, network: SimCLR, source: TokenBatches, *, colour: ColourConfig, **more: Any) -> None:
        super().__init__(network, source, **more)
        self._network, self._colour = network, colour

    def losses(
        self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], *, number: int, rank: int
    ) -> Iterator[Loss]:
        """NT-Xent between the views."""
        pixels = images.to_float(torch.cat([batch["images"], batch["second"]]))
        first, second = self._vectors(modules["mage"], pixels, rng.generator(self._seed, "colour", number, rank))
        metrics = {"view_agreement": agreement(first.detach(), second.detach())}
        yield Loss("mage", self._network.loss(first, second), metrics)

    def validation_loss(self, objective: nn.Module, pixels: Tensor, index: int) -> float:
        """Between an image and its mirror image, coloured differently."""
        random = rng.generator(self._seed, "validation colour", index)
        first, second = self._vectors(objective, torch.cat([pixels, pixels.flip(-1)]), random)
        return float(self._network.loss(first, second))

    def _vectors(self, objective: nn.Module, pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if pixels.shape[1] == 3:
            pixels = colour_jitter(pixels, self._colour, generator)
        first, second = objective(pixels).chunk(2)
        return first, second
