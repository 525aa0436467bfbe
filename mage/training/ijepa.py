"""Pre-training of I-JEPA: blocks for the step's whole batch, squared error, and the target encoder's update."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mage import images, rng
from mage.data.batches import Batches
from mage.models.ijepa import IJEPA, Blocks, IJEPAConfig, draw_blocks
from mage.models.pixels import PatchEncoder
from mage.share import Turn
from mage.training.method import METHODS, MethodConfig, MethodInputs
from mage.training.pixels import PixelPretraining, pixel_settings
from mage.training.task import Loss, Observation, Task, TrainingWarning

COLLAPSED = 1e-3
"""Standard deviation of the layer-normalised features over images below which they count as collapsed."""


class IJEPAPretraining(PixelPretraining):
    """I-JEPA: one view, four of its blocks predicted from the rest."""

    def __init__(self, network: IJEPA, source: Batches, **more: Any) -> None:
        super().__init__(network, source, **more)
        self._network = network
        self.frozen = (network.target_encoder, network.context_encoder.position)

    def losses(self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], turn: Turn) -> Iterator[Loss]:
        """Squared error of the targets' representations."""
        pixels = images.to_float(batch["images"])
        whole = self._blocks(turn.share.batch_size, rng.generator(self._seed, "blocks", turn.step))
        blocks = Blocks(turn.take(whole.context), turn.take(whole.targets))
        yield Loss("mage", self._loss(modules["mage"], pixels, blocks))

    def after_update(self, module: str, step: int) -> None:
        """Update the target encoder, with a momentum that rises to 1."""
        self._network.follow(self._network.config.momentum_at(step / self.steps))

    def validation_loss(self, objective: nn.Module, pixels: Tensor, index: int) -> float:
        """The loss with fixed blocks."""
        blocks = self._blocks(len(pixels), rng.generator(self._seed, "validation blocks", index))
        return float(self._loss(objective, pixels, blocks))

    def observe(self, modules: Mapping[str, nn.Module]) -> Observation:
        """Like other methods on pixels, plus the standard deviation of features over held-out images."""
        encoder = modules["mage"].encoder
        assert isinstance(encoder, PatchEncoder)
        device = next(encoder.parameters()).device
        features = [encoder.features(images.to_float(part.to(device))) for part in self._validation.split(256)]
        spread = torch.cat(features).std(dim=0, correction=0).mean()
        metrics = super().observe(modules).metrics
        return Observation(metrics | {"valid/feature_std": float(spread)})

    def warnings(self, metrics: Mapping[str, float]) -> list[TrainingWarning]:
        """Warn if features collapse: equal features for all images are the easiest to predict."""
        spread = metrics.get("valid/feature_std", 1.0)
        if spread >= COLLAPSED:
            return []
        sentence = (
            f"features of different images differ by only {spread:.2g} (below {COLLAPSED}): the encoder collapses; "
            "try a lower base_learning_rate or a method.ijepa.momentum closer to 1"
        )
        return [TrainingWarning("collapse", sentence)]

    def _blocks(self, count: int, generator: torch.Generator) -> Blocks:
        return draw_blocks(self._network.config.blocks, count, self._network.encoder.grid, generator)

    def _loss(self, objective: nn.Module, pixels: Tensor, blocks: Blocks) -> Tensor:
        loss: Tensor = objective(pixels, blocks.mask.to(pixels.device), blocks.targets.to(pixels.device))
        return loss


@METHODS.register("ijepa")
@dataclass(frozen=True)
class IJEPAMethod(MethodConfig):
    """I-JEPA: representations of left-out blocks are predicted (Assran et al. 2023).

    The target encoder, which is kept, already is a moving average: set `pretraining.ema_decay=0` to save a second one.
    """

    name: str = "ijepa"
    """Name of the method."""
    patch_size: int = 16
    """Pixels per side of a patch."""
    ijepa: IJEPAConfig = field(default_factory=IJEPAConfig)
    """Predictor, blocks and momentum."""

    reads: ClassVar[Literal["tokens", "images"]] = "images"

    def build(self, inputs: MethodInputs) -> Task:
        """The task of a run."""
        with inputs.random_weights("ijepa"):
            network = IJEPA(inputs.patch_encoder(self.patch_size), self.ijepa)
        return IJEPAPretraining(network, inputs.source, **pixel_settings(inputs))
