"""A step of pre-training, on tokens from a cache and on images that are tokenized in the step."""

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mage import images, rng
from mage.benchmarks import plain
from mage.benchmarks.work import OURS, Bench, Work
from mage.data.batches import Batch, Batches
from mage.masking import MaskRatioConfig, random_mask
from mage.models import MAGETransformer
from mage.pipeline import Mage
from mage.recipes import named
from mage.sampling.settings import SamplingConfig
from mage.training.engine import Trainer
from mage.training.optim import OptimConfig
from mage.training.pretrain import Pretraining
from mage.training.run import RunConfig


def pretrain(bench: Bench) -> list[Work]:
    """Steps on cached tokens and on images, ours and plain."""
    tokens, pixels = bench.tokens(), images.to_uint8(bench.images)
    network, plain_network = trainable(bench.model.require_generator()), trainable(bench.plain_network)
    cached = engine_step(bench, network, repeated({"tokens": tokens}), bench.folder / "cached")
    online = engine_step(bench, network, repeated({"images": pixels}), bench.folder / "online")
    optimizer = plain.adamw(plain_network, 1e-4)

    def plain_online() -> None:
        with torch.no_grad():
            encoded = plain.encode(bench.plain_tokenizer, images.to_float(pixels))
        plain_step(plain_network, optimizer, encoded)

    def plain_cached() -> None:
        plain_step(plain_network, optimizer, tokens)

    ways: dict[str, Callable[[], object]] = {
        OURS: cached,
        "ours_online": online,
        "plain": plain_cached,
        "plain_online": plain_online,
    }
    return [Work("pretrain", bench.batch, ways)]


def engine_step(bench: Bench, network: MAGETransformer, source: Batches, folder: Path) -> Callable[[], None]:
    """One step of the library's own training loop, with clipping, averaging and logging."""
    optim = replace(named("imagenet-base").pretraining, batch_size=bench.batch, steps=10**6)
    return trainer_step(bench.model, network, optim, MaskRatioConfig(), source, folder, bench)


def trainer_step(
    model: Mage,
    network: MAGETransformer,
    optim: OptimConfig,
    masking: MaskRatioConfig,
    source: Batches,
    folder: Path,
    bench: Bench,
) -> Callable[[], None]:
    """The same with chosen settings."""
    task = Pretraining(
        network, model.tokenizer, source, num_images=10**6,
        optim=optim, masking=masking, sampling=SamplingConfig(), recipe={}, seed=0, precision=model.precision,
    )  # fmt: skip
    folder.mkdir(parents=True)
    trainer = Trainer(task, folder, 0, {}, precision=model.precision, device=model.device)
    bench.stack.enter_context(trainer.logging(RunConfig(), progress=False))
    return trainer.train_step


def repeated(batch: Batch) -> Batches:
    """One batch for all steps."""
    return lambda start, share: itertools.repeat(batch)


def plain_step(network: MAGETransformer, optimizer: torch.optim.Optimizer, tokens: Tensor) -> None:
    """Forward, backward, clipping, AdamW."""
    mask = random_mask(MaskRatioConfig(), len(tokens), tokens.shape[1], rng.generator(0))
    loss = plain.loss(network, tokens, mask.masked.to(tokens.device), mask.dropped.to(tokens.device))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 3.0, foreach=False)
    optimizer.step()
    float(loss.detach())  # a plain loop prints it


def trainable(network: MAGETransformer) -> MAGETransformer:
    """A copy in training mode."""
    return copy.deepcopy(network).train().requires_grad_(True)
