"""Training a VQGAN: pixels, what a classifier sees of them, commitment to the codebook, and a discriminator.

The discriminator is a second module with its own optimizer and yields a second loss per batch (METHOD section 2).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mage import images
from mage.tokenizers.discriminator import build_discriminator
from mage.tokenizers.quantizers import codebook_usage
from mage.tokenizers.vqgan import VQGAN
from mage.training import adversarial
from mage.training.adversarial import AdversarialConfig, Adversary
from mage.training.optim import OptimConfig
from mage.training.pretrain import write_model
from mage.training.task import Loss, Observation

ImageBatches = Callable[[int, int, int], Iterator[dict[str, Tensor]]]
"""(number of the first batch, rank, world size) -> batches with "images", uint8 (n, c, h, w)."""


@dataclass(frozen=True)
class TokenizerLossConfig:
    """Weights of the losses."""

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
    """Pixels per side at which the perceptual network sees images."""
    perceptual_share: float = 0.5
    """Share of each batch that goes through the perceptual network, which costs more than a small tokenizer."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """The discriminator."""


class TokenizerTraining:
    """The task: a VQGAN, and a discriminator with an optimizer of its own where the losses ask for one."""

    def __init__(
        self,
        tokenizer: VQGAN,
        source: ImageBatches,
        *,
        num_images: int,
        optim: OptimConfig,
        loss: TokenizerLossConfig,
        recipe: dict[str, Any],
        validation: Tensor,
        perceptual: nn.Module | None = None,
        precision: str = "float32",
    ) -> None:
        """validation: uint8 images (n, c, h, w) kept out of training. perceptual: called with (images, targets).

        precision: in which the discriminator judges for the tokenizer; the loop's own.
        """
        self.modules: dict[str, nn.Module] = {"tokenizer": tokenizer}
        self.frozen: tuple[nn.Module, ...] = ()
        self.optim = {"tokenizer": optim}
        self.batch_size, self.steps = optim.batch_size, optim.num_steps(num_images)
        self._source, self._weights, self._recipe = source, loss, recipe
        self._validation, self._perceptual = validation, perceptual
        self._adversary: Adversary | None = None
        if loss.adversarial.weight:
            network = build_discriminator(loss.adversarial.discriminator, tokenizer.channels, tokenizer.image_size)
            self._adversary = Adversary(network, loss.adversarial, steps=self.steps, precision=precision)
            self.modules["discriminator"] = self._adversary.module
            self.optim["discriminator"] = loss.adversarial.optim(optim)
        self._notes: dict[str, Any] = {}
        self._last_weights = tokenizer.decoder.out.weight

    def batches(self, start: int, *, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """This process's batches from number `start` on."""
        return self._source(start, rank, world_size)

    def losses(
        self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], *, number: int, rank: int
    ) -> Iterator[Loss]:
        """Reconstruction and codebook; then the discriminator, once it has joined."""
        targets = images.to_float(batch["images"])
        output = modules["tokenizer"](targets)
        reconstruction = output.reconstruction.float()
        squared = functional.mse_loss(reconstruction, targets)
        absolute = functional.l1_loss(reconstruction, targets)
        weights = self._weights
        total = weights.squared * squared + weights.absolute * absolute + output.quantizer_loss
        metrics = {"squared_error": squared, "quantizer_loss": output.quantizer_loss}
        if self._perceptual is not None:
            count = max(1, round(len(targets) * weights.perceptual_share))
            perceptual = self._perceptual.to(targets.device)(reconstruction[:count], targets[:count])
            total = total + weights.perceptual * perceptual
            metrics["perceptual"] = perceptual
        step = number // self.optim["tokenizer"].accumulation
        adversary = self._adversary if self._adversary is not None and self._adversary.takes_part(step) else None
        if adversary is not None:
            push, found = adversary.push(reconstruction, total, self._last_weights)
            total, metrics = total + push, metrics | found
        yield Loss("tokenizer", total, metrics)
        if adversary is not None:
            yield Loss("discriminator", *adversary.learn(modules["discriminator"], targets, reconstruction, step=step))

    def observe(self, modules: Mapping[str, nn.Module], *, pictures: bool) -> Observation:
        """PSNR and codebook usage on the validation images; originals above their reconstructions."""
        tokenizer = modules["tokenizer"]
        assert isinstance(tokenizer, VQGAN)
        metrics, counts = reconstruction_quality(tokenizer, self._validation)
        self._notes = {"psnr_db": metrics["psnr_db"], "code_counts": counts.tolist(), "images": len(self._validation)}
        if not pictures:
            return Observation(metrics)
        return Observation(metrics, side_by_side(tokenizer, self._validation[:16]))

    def export(self, modules: Mapping[str, nn.Module], folder: Path) -> None:
        """Write the averaged tokenizer as a model folder."""
        tokenizer = modules["tokenizer"]
        assert isinstance(tokenizer, VQGAN)
        write_model(tokenizer, None, self._recipe, {"tokenizer": self._notes} if self._notes else {}, folder)

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """A collapsed codebook, a game that one side has won."""
        found = list(adversarial.warnings(metrics))
        if metrics.get("codes_used", 1.0) < 0.25:
            found.append(
                f"the codebook has collapsed to {metrics['codes_used']:.1%} of its codes: set "
                "tokenizer.quantizer.kind=normalized with a small tokenizer.code_width, or keep_alive=true"
            )
        return found

    def state(self) -> dict[str, Any]:
        """Nothing beyond the networks."""
        return {}


def reconstruction_quality(tokenizer: VQGAN, uint8_images: Tensor) -> tuple[dict[str, float], Tensor]:
    """PSNR in dB (mean over images, clamped to [0, 1]) and codebook usage; and the counts of the codes."""
    device = next(tokenizer.parameters()).device
    found, ids = [], []
    for part in uint8_images.split(256):
        targets = images.to_float(part.to(device))
        codes = tokenizer.encode(targets)
        found.append(images.psnr(tokenizer.decode(codes), targets))
        ids.append(codes.cpu())
    usage = codebook_usage(torch.cat(ids), tokenizer.num_codes)
    metrics = {
        "psnr_db": float(torch.cat(found).mean()),
        "codes_used": usage.used,
        "codebook_perplexity": usage.perplexity,
    }
    return metrics, usage.counts


def side_by_side(tokenizer: VQGAN, uint8_images: Tensor) -> Tensor:
    """A grid with originals in every other row and their reconstructions below."""
    device = next(tokenizer.parameters()).device
    originals = images.to_float(uint8_images.to(device))
    again = tokenizer.decode(tokenizer.encode(originals))
    rows = [part for pair in zip(originals.split(8), again.split(8), strict=True) for part in pair]
    return images.make_grid(torch.cat(rows).cpu(), columns=8)
