"""A step of tokenizer training: pixel losses and the codebook."""

import copy
import itertools
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional

from mage import images
from mage.benchmarks import plain
from mage.benchmarks.work import OURS, Bench, Work, vqgan_of
from mage.recipes import named
from mage.tokenizers import VQGAN
from mage.training.engine import Trainer
from mage.training.run import RunConfig
from mage.training.tokenizer import TokenizerLossConfig, TokenizerTraining


def tokenizer_step(bench: Bench) -> list[Work]:
    """A step of the library's loop, against the plain layout with PyTorch's AdamW."""
    pixels = images.to_uint8(bench.images)
    optim = replace(named("imagenet-base").tokenizer_training, batch_size=bench.batch, steps=10**6)
    own = copy.deepcopy(vqgan_of(bench.model)).train().requires_grad_(True)
    task = TokenizerTraining(
        own, lambda start, share: itertools.repeat({"images": pixels}), num_images=10**6, optim=optim,
        loss=TokenizerLossConfig(), recipe={}, validation=pixels.cpu(),
    )  # fmt: skip
    folder = bench.folder / "tokenizer"
    folder.mkdir(parents=True)
    trainer = Trainer(task, folder, 0, {}, precision=bench.model.precision, device=bench.device())
    bench.stack.enter_context(trainer.logging(RunConfig(), progress=False))
    other = copy.deepcopy(bench.plain_tokenizer).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-4, betas=(0.0, 0.99), weight_decay=0.0, foreach=False)

    def plainly() -> None:
        _plain_step(other, optimizer, images.to_float(pixels))

    return [Work("tokenizer_step", bench.batch, {OURS: trainer.train_step, "plain": plainly}, ceiling="conv3x3")]


def _plain_step(tokenizer: VQGAN, optimizer: torch.optim.Optimizer, targets: torch.Tensor) -> None:
    latent = plain.latent(tokenizer, targets)
    ids = plain.nearest(tokenizer, latent)
    words = plain.words(tokenizer, ids)
    vectors = latent + (words - latent).detach()
    reconstruction = plain.pixels(tokenizer, vectors)
    loss = functional.mse_loss(reconstruction, targets) + 0.1 * functional.l1_loss(reconstruction, targets)
    loss = loss + functional.mse_loss(words, latent.detach()) + 0.25 * functional.mse_loss(latent, words.detach())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(tokenizer.parameters(), 1.0, foreach=False)
    optimizer.step()
    float(loss.detach())
