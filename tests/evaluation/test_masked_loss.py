"""The masked loss of held-out tokens: a mean over masked tokens, with and without the smoothing of training."""

import pytest
import torch
from torch.nn import functional

from mage import rng
from mage.evaluation import masked_loss as module
from mage.evaluation.masked_loss import MaskedLoss, MaskedTokens, masked_loss
from mage.evaluation.metric import measure
from mage.masking import MaskRatioConfig, random_mask
from mage.models import MAGEConfig, MAGETransformer
from mage.vocabulary import Vocabulary


def test_it_is_the_mean_over_the_masked_tokens_of_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 4)
    config = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2, label_smoothing=0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MAGETransformer(config, Vocabulary.fresh(9), (2, 4)).eval().requires_grad_(False)
    network.head.bias.copy_(3 * torch.randn(network.head.bias.shape, generator=rng.generator(1)))
    tokens = torch.randint(9, (6, 2, 4), generator=rng.generator(0, "tokens"))
    losses: list[torch.Tensor] = []
    for index, part in enumerate(tokens.flatten(1).split(4)):
        mask = random_mask(MaskRatioConfig(per_image=True), len(part), 8, rng.generator(0, "validation mask", index))
        scores = network(part, mask).code_logits
        losses += functional.cross_entropy(scores.transpose(1, 2), part, reduction="none")[mask.masked]
    subject, expected = MaskedTokens(network, tokens), float(torch.stack(losses).mean())
    assert masked_loss(subject, smoothing=0.0) == pytest.approx(expected, rel=1e-5)
    assert masked_loss(subject) > expected + 0.01, "as in training: with its smoothing"
    more = MaskRatioConfig("cosine", low=0.01, high=0.3, drop=False)
    assert masked_loss(MaskedTokens(network, tokens, masking=more)) != pytest.approx(masked_loss(subject), rel=1e-3)
    assert measure({"loss": MaskedLoss()}, subject).metrics["masked_loss"] == pytest.approx(expected, rel=1e-5)
