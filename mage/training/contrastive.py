"""MAGE-C: two masked views of each image are reconstructed and contrasted (paper, section 3.3; METHOD section 9).

Beside the published form, ways to keep generation intact that ContrastiveConfig names: contrast only images masked
little, a weight that grows or fades, a view that holds still.

Letters: n images, l tokens.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mage import rng
from mage.masking import Mask, MaskRatioConfig, mask_from_noise, sample_mask_ratio
from mage.models import MAGE
from mage.models.contrastive import ContrastiveConfig, Projection, agreement, info_nce
from mage.training.pretrain import Pretraining
from mage.training.task import Loss


class PairLosses(NamedTuple):
    """What one pass over both views gives."""

    reconstruction: Float[Tensor, ""]
    contrastive: Float[Tensor, ""]
    agreement: Float[Tensor, ""]
    """Share of images whose nearest other view is their own."""


class ContrastiveObjective(nn.Module):
    """The network with both losses, as one module, so that wrappers for many processes see a single forward."""

    def __init__(self, network: MAGE, config: ContrastiveConfig) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.projection = Projection(network.config.width, config)

    def forward(self, tokens: Int[Tensor, "n2 l"], mask: Mask, use: Bool[Tensor, " n"]) -> PairLosses:
        """tokens: first views, then second views. use: the images that are contrasted."""
        output = self.network(tokens, mask)
        vectors = self.projection(output.latent[:, 1:].mean(dim=1))
        first, second = vectors.chunk(2)
        temperature = self.config.temperature
        if self.config.stop_gradient:
            towards_second = info_nce(first, second.detach(), temperature=temperature, use=use)
            contrast = (towards_second + info_nce(second, first.detach(), temperature=temperature, use=use)) / 2
        else:
            contrast = info_nce(first, second, temperature=temperature, use=use)
        return PairLosses(self.network.loss(output, tokens, mask), contrast, agreement(first.detach(), second.detach()))


class ContrastivePretraining(Pretraining):
    """The task of MAGE-C: as MAGE's, on pairs of views."""

    def __init__(self, network: MAGE, *arguments: Any, contrastive: ContrastiveConfig, **more: Any) -> None:
        """Arguments as of Pretraining; the source gives "tokens" and "second", or "images" and "second" uint8."""
        super().__init__(network, *arguments, **more)
        self.modules = {"mage": ContrastiveObjective(network, contrastive)}
        self._contrastive = contrastive

    def losses(
        self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], *, number: int, rank: int
    ) -> Iterator[Loss]:
        """Masked cross-entropy of both views plus the weighted contrast between them."""
        if "tokens" in batch:
            tokens = torch.cat([batch["tokens"], batch["second"]])
        else:
            tokens = self.encode(torch.cat([batch["images"], batch["second"]]))
        config = self._contrastive
        random = rng.generator(self._seed, "mask", number, rank)
        mask = pair_mask(self._masking, len(tokens) // 2, tokens[0].numel(), random, share_ratio=config.share_ratio)
        shares = mask.masked.float().mean(dim=1).view(2, -1)
        use = (shares <= config.max_ratio).all(dim=0)
        found: PairLosses = modules["mage"](tokens.flatten(1), mask.to(tokens.device), use.to(tokens.device))
        weight = config.weight_at(number / (self.steps * self.optim["mage"].accumulation))
        metrics = {
            "reconstruction": found.reconstruction,
            "contrastive": found.contrastive,
            "view_agreement": found.agreement,
        }
        yield Loss("mage", found.reconstruction + weight * found.contrastive, metrics)


def pair_mask(
    config: MaskRatioConfig, count: int, length: int, generator: torch.Generator, *, share_ratio: bool
) -> Mask:
    """Masks of `count` first views and as many second ones, with ratios of their own or shared; on the CPU."""
    ratios = [sample_mask_ratio(config, count if config.per_image else 1, generator).expand(count) for _ in range(2)]
    noise = torch.rand(2 * count, length, generator=generator)
    ratio = torch.cat([ratios[0], ratios[0] if share_ratio else ratios[1]])
    return mask_from_noise(noise, ratio, drop_ratio=config.drop_ratio)
