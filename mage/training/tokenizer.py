"""Training of a VQGAN: pixel and perceptual losses, commitment to the codebook, and a discriminator.

The discriminator is a second module with its own optimizer and yields a second loss per batch.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mage import images
from mage.data.batches import Batches
from mage.device import send
from mage.evaluation.tokenizer import reconstruction_quality, rows_of_reconstructions
from mage.share import Turn
from mage.store import folder as store
from mage.store.parts import ModelParts
from mage.tokenizers.discriminator import build_discriminator
from mage.tokenizers.perceptual import build_perceptual
from mage.tokenizers.quantizers.life import CodebookLife
from mage.tokenizers.vqgan import VQGAN
from mage.training import adversarial
from mage.training.adversarial import AdversarialConfig, Adversary
from mage.training.optim import OptimConfig
from mage.training.redraw import Redraw
from mage.training.task import Loss, Observation, Reading, Task, TrainingWarning

WATCHED = ("psnr_db", "codes_used", "codebook_perplexity")
"""What is measured on validation images while a tokenizer is trained."""


@dataclass(frozen=True)
class TokenizerLossConfig:
    """Weights of the losses, and what they train."""

    squared: float = 1.0
    """Weight of the mean squared error of the pixels."""
    absolute: float = 0.1
    """Weight of the mean absolute error of the pixels."""
    perceptual: float = 0.0
    """Weight of the perceptual loss."""
    perceptual_network: str = "efflite0"
    """efflite0: EfficientNet-Lite0, in the extra `metrics`. lpips-vgg: LPIPS. timm:NAME: maps of a timm model."""
    perceptual_weights: str = ""
    """lpips-vgg, timm:NAME: weight file, or folder of them; empty: where PyTorch and timm cache or download them."""
    perceptual_size: int = 64
    """Pixels per side of the perceptual network's input; LPIPS sees images as they are."""
    perceptual_share: float = 0.5
    """Share of each batch that goes through the perceptual network, which costs more than a small tokenizer."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """The discriminator."""
    freeze_encoder: bool = False
    """Train the decoder only, of a tokenizer that has weights: the ids of images do not change."""
    redrawn: float = 0.0
    """Largest share of each image's tokens that a trained network redraws before they are decoded, towards the same
    image: the decoder learns to be good at generated tokens. Needs freeze_encoder."""

    def __post_init__(self) -> None:
        if not 0 <= self.redrawn <= 1:
            raise ValueError(f"tokenizer_loss.redrawn is a share of the tokens, from 0 to 1, not {self.redrawn}")
        if not 0 < self.perceptual_share <= 1:
            raise ValueError(
                f"tokenizer_loss.perceptual_share is a share of the batch, above 0 to 1, not {self.perceptual_share}"
            )
        if self.redrawn and not self.freeze_encoder:
            raise ValueError("tokenizer_loss.redrawn needs tokenizer_loss.freeze_encoder: a network knows these tokens")


def perceptual_of(config: TokenizerLossConfig, channels: int) -> nn.Module | None:
    """The perceptual loss for images of so many channels; None without. Raises ValueError as `build_perceptual`."""
    if not config.perceptual:
        return None
    return build_perceptual(
        config.perceptual_network,
        channels=channels,
        weights=config.perceptual_weights,
        size=config.perceptual_size,
    )


class TokenizerTraining(Task):
    """The task: a VQGAN, and a discriminator with its own optimizer if the adversarial loss is used."""

    def __init__(
        self,
        tokenizer: VQGAN,
        source: Batches,
        *,
        num_images: int,
        optim: OptimConfig,
        loss: TokenizerLossConfig,
        recipe: dict[str, Any],
        validation: Tensor,
        perceptual: nn.Module | None = None,
        precision: str = "float32",
        redraw: Redraw | None = None,
        whole: ModelParts | None = None,
    ) -> None:
        """validation: held-out uint8 images (n, c, h, w). perceptual: called with (images, targets).

        redraw: what happens to the tokens of images before they are decoded. whole: the model that the tokenizer is
        part of, which is written with it.
        precision: of the discriminator in the tokenizer's loss; the same as the loop's.
        """
        super().__init__("tokenizer", tokenizer, source, optim, num_images=num_images)
        self._weights, self._recipe = loss, recipe
        self._validation, self._perceptual, self._redraw = validation, perceptual, redraw
        # A copy, since processes may hold only parts of the one that is trained outside of its forward pass.
        self._own = None if redraw is None else copy.deepcopy(tokenizer).eval().requires_grad_(False)
        self._whole = whole
        self._adversary: Adversary | None = None
        if loss.adversarial.weight:
            network = build_discriminator(loss.adversarial.discriminator, tokenizer.channels, tokenizer.image_size)
            self._adversary = Adversary(network, loss.adversarial, steps=self.steps, precision=precision)
            self.modules["discriminator"] = self._adversary.module
            self.kept_whole = ("discriminator",)
            self.optim["discriminator"] = loss.adversarial.optim(optim)
        self.frozen = (tokenizer.encoder, tokenizer.quantizer) if loss.freeze_encoder else ()
        self._notes: dict[str, Any] = {}
        self._last_layer = tokenizer.decoder.out
        if isinstance(life := getattr(tokenizer.quantizer, "life", None), CodebookLife):
            life.parts = self.accumulation
        of_parts = (
            ["the weight of the adversarial loss"] if loss.adversarial.weight and loss.adversarial.adaptive else []
        )
        of_parts += ["the codebook's entropy"] if tokenizer.config.quantizer.entropy else []
        if of_parts:
            self.of_parts = f"{' and '.join(of_parts)} {'are' if len(of_parts) > 1 else 'is'} computed in each of them"
        if isinstance(getattr(tokenizer.quantizer, "codebook", None), nn.Parameter):
            self.moved = {"tokenizer": [(tokenizer.quantizer, "codebook")]}

    def losses(self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], turn: Turn) -> Iterator[Loss]:
        """Losses of reconstruction and codebook, then the discriminator's, once it is used."""
        targets = images.to_float(batch["images"])
        output = modules["tokenizer"](targets, self._redrawn(targets, turn))
        reconstruction = output.reconstruction
        squared = functional.mse_loss(reconstruction, targets)
        absolute = functional.l1_loss(reconstruction, targets)
        weights = self._weights
        total = weights.squared * squared + weights.absolute * absolute + output.quantizer_loss
        readings = {"squared_error": Reading(squared), "quantizer_loss": Reading(output.quantizer_loss)}
        if self._perceptual is not None:
            perceptual = self._perceptual_loss(reconstruction, targets, turn)
            total = total + weights.perceptual * perceptual
            readings["perceptual"] = Reading(perceptual)
        adversary = self._adversary if self._adversary is not None and self._adversary.takes_part(turn.step) else None
        if adversary is not None:
            push, more = adversary.push(reconstruction, total, self._last_layer.weight)
            total, readings = total + push, readings | more
        yield Loss("tokenizer", total, readings)
        if adversary is not None:
            wrapped = modules["discriminator"]
            yield Loss("discriminator", *adversary.learn(wrapped, targets, reconstruction, step=turn.step))

    def _redrawn(self, targets: Tensor, turn: Turn) -> Tensor | None:
        """Tokens of the images after a part was redrawn; nothing if nothing is."""
        if self._redraw is None or self._own is None:
            return None
        with torch.no_grad():
            return self._redraw(self._own.to(targets.device).encode(targets), turn)

    def _perceptual_loss(self, reconstruction: Tensor, targets: Tensor, turn: Turn) -> Tensor:
        """Perceptual loss of a share of the step's images, evenly spread, so that all processes have some of them."""
        assert self._perceptual is not None
        share, size = self._weights.perceptual_share, turn.share.batch_size
        total = max(1, round(size * share))
        chosen = [row for row in turn.rows if row * total // size != (row + 1) * total // size]
        if not chosen:
            return reconstruction.sum() * 0
        own = send(torch.tensor(chosen) - turn.rows.start, targets.device)
        loss: Tensor = self._perceptual.to(targets.device)(reconstruction[own], targets[own])
        return loss * (len(chosen) * size / (total * len(targets)))

    def observe(self, modules: Mapping[str, nn.Module]) -> Observation:
        """PSNR and codebook usage on the validation images; originals above their reconstructions."""
        tokenizer = modules["tokenizer"]
        assert isinstance(tokenizer, VQGAN)
        quality = reconstruction_quality(tokenizer, self._validation)
        self._notes = {
            "psnr_db": quality.metrics["psnr_db"],
            "code_counts": quality.details["codes_used"]["counts"],
            "images": len(self._validation),
        }
        return Observation(
            {name: quality.metrics[name] for name in WATCHED}, rows_of_reconstructions(tokenizer, self._validation[:16])
        )

    def export(self, modules: Mapping[str, nn.Module], folder: Path) -> None:
        """Write the averaged tokenizer as a model folder, or the whole model with it, which keeps its recipe."""
        tokenizer = modules["tokenizer"]
        assert isinstance(tokenizer, VQGAN)
        notes = {"tokenizer": self._notes} if self._notes else {}
        parts = ModelParts(tokenizer, None, self._recipe, notes)
        if self._whole is not None:
            told = {name: self._recipe[name] for name in ("tokenizer_loss", "tokenizer_training")}
            whole = self._whole
            sizes = {"tokenizer": self._recipe["tokenizer"]} if "tokenizer" in whole.recipe else {}
            notes = whole.notes | notes | {"decoder": told}
            parts = replace(whole, tokenizer=tokenizer, recipe=whole.recipe | sizes, notes=notes)
        store.write(parts, folder)

    def warnings(self, metrics: Mapping[str, float]) -> list[TrainingWarning]:
        """Warnings about a collapsed codebook or failed adversarial training.

        Other images than its own may need few words of a codebook that does not change.
        """
        warnings = list(adversarial.warnings(metrics))
        if metrics.get("codes_used", math.inf) < 0.25 and not self._weights.freeze_encoder:
            warnings.append(
                TrainingWarning(
                    "codebook_collapse",
                    f"the codebook has collapsed to {metrics['codes_used']:.1%} of its codes: set "
                    "tokenizer.quantizer.kind=normalized with a small tokenizer.code_width, or keep_alive=true",
                )
            )
        return warnings

    def state(self) -> dict[str, Any]:
        """Notes of the last observation for the model folder, and whether the discriminator is used yet."""
        return {"notes": self._notes, "adversary": self._adversary is not None and self._adversary.started}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the same: a run that becomes longer does not leave its discriminator again."""
        self._notes = state.get("notes", {})
        if self._adversary is not None:
            self._adversary.started = bool(state.get("adversary", False))
