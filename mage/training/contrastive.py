"""MAGE-C: two masked views of each image are reconstructed and contrasted (paper, section 3.3).

ContrastiveConfig also has variants that preserve generation quality: contrast only images with few masked tokens, let
the weight rise or fall, or stop the gradient at one view.

Letters: n images, l tokens.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mage import distributed, rng
from mage.device import send
from mage.masking import Mask, MaskRatioConfig, StepMask, masks_of_rows, sample_mask_ratio
from mage.models import MAGEConfig, MAGETransformer
from mage.models.contrastive import ContrastiveConfig, Projection, agreement, info_nce
from mage.share import Turn
from mage.training.method import METHODS, MethodConfig, MethodInputs
from mage.training.pretrain import Pretraining, check_dropping, new_network, task_settings
from mage.training.task import Loss, Reading, Task

CONTRASTED = "images are contrasted with those of their own part alone"
"""What depends on the accumulation of methods that contrast."""


class PairLosses(NamedTuple):
    """Losses of one pass over both views."""

    reconstruction: Float[Tensor, ""]
    contrastive: Float[Tensor, ""]
    agreement: Float[Tensor, ""]
    """Share of images whose nearest other view is their own."""


class ContrastiveObjective(nn.Module):
    """The network with both losses, as one module, so that DDP wraps a single forward pass."""

    def __init__(self, network: MAGETransformer, config: ContrastiveConfig) -> None:
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
    """The task of MAGE-C: like MAGE's, on pairs of views."""

    of_parts = CONTRASTED

    def __init__(self, network: MAGETransformer, *arguments: Any, contrastive: ContrastiveConfig, **more: Any) -> None:
        """Arguments as of Pretraining; the source gives "tokens" and "second", or "images" and "second" uint8."""
        super().__init__(network, *arguments, **more)
        self.modules = {"mage": ContrastiveObjective(network, contrastive)}
        self._contrastive = contrastive
        self.one_graph = distributed.world_size() == 1  # the exchange of vectors between processes ends a graph

    def losses(self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], turn: Turn) -> Iterator[Loss]:
        """Masked cross-entropy of both views plus the weighted contrast between them."""
        if "tokens" in batch:
            tokens = torch.cat([batch["tokens"], batch["second"]])
        else:
            tokens = self.encode(torch.cat([batch["images"], batch["second"]]))
        config = self._contrastive
        random = rng.generator(self._seed, "mask", turn.step)
        drawn = pair_mask(
            self._masking, turn.share.batch_size, tokens[0].numel(), random, turn.rows, share_ratio=config.share_ratio
        )
        shares = drawn.mask.masked.float().mean(dim=1).view(2, -1)
        use = (shares <= config.max_ratio).all(dim=0)
        device = tokens.device
        use = send(use, device)
        output: PairLosses = modules["mage"](tokens.flatten(1), drawn.mask.to(device), use)
        reconstruction = drawn.weight * output.reconstruction
        readings = {
            "reconstruction": Reading(reconstruction),
            "contrastive": Reading(output.contrastive),
            "view_agreement": Reading(output.agreement),
        }
        yield Loss("mage", reconstruction + config.weight_at(turn.step / self.steps) * output.contrastive, readings)


def pair_mask(
    config: MaskRatioConfig, count: int, length: int, generator: torch.Generator, rows: range, *, share_ratio: bool
) -> StepMask:
    """Masks of the first views of `rows`, then of the second views, with separate or shared ratios; on the CPU."""
    ratios = torch.stack(
        [sample_mask_ratio(config, count if config.per_image else 1, generator).expand(count) for _ in range(2)]
    )
    if share_ratio:
        ratios = ratios[:1].expand(2, -1)
    return masks_of_rows(config, ratios, length, generator, rows)


@METHODS.register("mage-c")
@dataclass(frozen=True)
class MAGECMethod(MethodConfig):
    """MAGE-C: MAGE on two views of each image, which are contrasted (paper, section 3.3)."""

    name: str = "mage-c"
    """Name of the method."""
    masking: MaskRatioConfig = field(default_factory=MaskRatioConfig)
    """Masking in training."""
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    """The contrastive loss between the views."""

    pairs: ClassVar[bool] = True

    def check(self, model: MAGEConfig) -> None:
        """Raise ValueError if the method cannot train a network of these sizes."""
        check_dropping(self.masking, model)
        if self.contrastive.max_ratio < 1 and not self.masking.per_image:
            raise ValueError("method.contrastive.max_ratio below 1 needs method.masking.per_image=true")

    def build(self, inputs: MethodInputs) -> Task:
        """The task of a run."""
        network = new_network(inputs)
        with inputs.random_weights("projection"):
            return ContrastivePretraining(
                network, inputs.tokenizer, inputs.source, contrastive=self.contrastive, **task_settings(self, inputs)
            )
