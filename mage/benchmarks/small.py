"""Small models, where overhead dominates: a step of the library's loop against a simple training loop.

The simple loop is efficient, too: it computes in the same precision, uses PyTorch's fused attention, drops tokens by
gathering and scores only masked positions and codes. It is the prototype that the library replaced.
"""

import copy
from dataclasses import replace

import torch
from timm.models.vision_transformer import Attention
from torch import nn

from mage import rng
from mage.benchmarks.pretrain import repeated, trainable, trainer_step
from mage.benchmarks.work import OURS, Bench, Work
from mage.masking import MaskRatioConfig, random_mask
from mage.models import MAGEConfig, MAGETransformer
from mage.nn.dropout import use_dropout
from mage.recipes import named
from mage.vocabulary import Vocabulary

PROTOTYPE = MAGEConfig(192, 6, 3, decoder_width=192, decoder_depth=3, decoder_heads=3)
"""The prototype's network for CIFAR-10: 64 tokens of 512 codes, batch 128."""


def small_pretrain(bench: Bench) -> list[Work]:
    """One step at 64 tokens and batch 128, independent of the bench's batch."""
    batch, length, codes, grid = 128, 64, 512, (8, 8)
    device, precision = bench.device(), bench.model.precision
    torch.manual_seed(0)
    network = trainable(MAGETransformer(PROTOTYPE, Vocabulary.fresh(codes), grid).to(device))
    tokens = torch.randint(codes, (batch, length), generator=rng.generator(0)).to(device)
    optim = replace(named("cifar10").pretraining, optimizer="adamw", batch_size=batch, steps=10**6)
    masking = MaskRatioConfig(per_image=True)
    ours = trainer_step(
        bench.model, copy.deepcopy(network), optim, masking, repeated({"tokens": tokens}), bench.folder / "small", bench
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=optim.betas, weight_decay=0.05)
    for layer in network.modules():
        if isinstance(layer, Attention):
            layer.fused_attn = True  # type: ignore[misc]  # final for TorchScript's sake
    use_dropout(network, nn.Dropout)

    def prototype() -> None:
        mask = random_mask(masking, batch, length, rng.generator(0)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = network.loss(network(tokens, mask), tokens, mask)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 3.0)
        optimizer.step()
        loss.item()

    return [Work("small_pretrain", batch, {OURS: ours, "prototype": prototype})]
