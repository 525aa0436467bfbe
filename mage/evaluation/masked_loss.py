"""Cross-entropy of a network's guesses at masked tokens of held-out images, with masks that are always the same.

Networks can be compared by `MaskedLoss` if they have the same codes: with other ids of images it is another task.

Letters: n images, h w tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from mage import rng
from mage.evaluation.metric import Description, Evaluator, Metric
from mage.masking import MaskRatioConfig, random_mask
from mage.models import MAGETransformer

AT_ONCE = 256
"""Images of one pass."""


@dataclass(frozen=True)
class MaskedTokens:
    """A network and tokens of images that it was not trained on."""

    network: MAGETransformer
    tokens: Int[Tensor, "n *grid"]
    seed: int = 0
    """Of the masks."""
    masking: MaskRatioConfig | None = None
    """None: the paper's, which compares networks that were masked differently in training."""


def masked_loss(subject: MaskedTokens, *, smoothing: float | None = None) -> float:
    """Nats per token, mean over all masked tokens of all images; without classes, each image at its own mask ratio.

    smoothing: of the labels. None: as in training, to be compared with its loss; 0: how likely the tokens are.
    """
    network, total, count = subject.network, 0.0, 0
    device = network.head.bias.device
    masking = subject.masking or MaskRatioConfig(drop=network.config.decoder_depth > 0)
    config = replace(masking, per_image=True)
    for index, part in enumerate(subject.tokens.split(AT_ONCE)):
        random = rng.generator(subject.seed, "validation mask", index)
        mask = random_mask(config, len(part), part[0].numel(), random).to(device)
        tokens = part.to(device).flatten(1)
        masked = int(mask.masked.sum())
        total += float(network.loss(network(tokens, mask), tokens, mask, smoothing=smoothing)) * masked
        count += masked
    return total / count


class MaskedLoss(Evaluator[MaskedTokens]):
    """The loss of pre-training, on held-out images."""

    metrics: ClassVar = {
        "masked_loss": Description(
            "Masked loss",
            "Cross-entropy of MAGE's guesses at masked tokens of test images, in nats; as uncertain as a choice among "
            "exp(loss) equally likely codes.",
            better="lower",
        )
    }

    def measure(self, subject: MaskedTokens) -> Iterator[Metric]:
        """The loss."""
        protocol = f"nats per token, mean over the masked tokens of {len(subject.tokens):,} images, without classes"
        yield self.metric("masked_loss", masked_loss(subject, smoothing=0.0), protocol)
