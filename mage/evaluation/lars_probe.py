"""Linear probe with LARS, the published protocol (paper, section 4.3; public code).

BatchNorm without affine part and a linear layer, trained with LARS for 90 epochs on frozen features: on one fixed view
of each image, or, as published, on a new random crop in every epoch, with the differences stated in `RANDOM_CROPS`.

Letters: n images, d feature width, k classes.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from timm.optim.lars import Lars
from torch import Tensor, nn
from torch.nn import functional

from mage import atomic, images, rng
from mage.data.datasets import ImageDataset
from mage.data.loaders import TrainLoader
from mage.data.transforms import TransformConfig, build_transform
from mage.evaluation.classification import ProbeResult
from mage.evaluation.features import Features, check_pair, labels_of
from mage.evaluation.linear_head import LinearHead
from mage.share import Share

logger = logging.getLogger(__name__)
RANDOM_CROPS = "random crops as published; ours: BatchNorm over the whole batch, accuracy of the last epoch"
"""Protocol of `lars_probe_on_crops` for the report.

The public code normalises over the images of one process (128) and logs the best epoch, chosen on the test images.
"""
ENOUGH_MOVEMENT = 2.0
"""Movement of the weights, over their norm, below which LARS is far from converged (measured on small data sets)."""


@dataclass(frozen=True)
class LarsConfig:
    """The published settings; `base_learning_rate` is 0.1 for ViT-B and 0.05 for ViT-L."""

    epochs: int = 90
    """Passes over the features."""
    warmup_epochs: int = 10
    """Epochs in which the learning rate rises from 0."""
    base_learning_rate: float = 0.1
    """Peak learning rate for a batch of 256, scaled in proportion."""
    batch_size: int = 4096
    """Features per step; cut to a quarter of a small training set."""
    momentum: float = 0.9
    """Momentum."""
    trust_coefficient: float = 0.001
    """LARS: step length as a share of the weights' norm."""


def lars_probe(train: Features, test: Features, *, config: LarsConfig, seed: int = 0) -> ProbeResult:
    """The published protocol, on cached features of one fixed view per image.

    LARS moves the weights in proportion to the number of images, whatever the batch size: below about 10,000 images its
    90 epochs end far from the optimum, and a warning is logged. Raises ValueError as `check_pair`.
    """
    classes = check_pair(train, test)
    count = len(train.labels)
    batch_size = _lars_batch_size(config, count)

    def batches() -> Iterator[Features]:
        for epoch in range(config.epochs):
            order = torch.randperm(count, generator=rng.generator(seed, "probe order", epoch))
            for chosen in order[: count // batch_size * batch_size].split(batch_size):
                yield Features(train.features[chosen], train.labels[chosen])

    return _lars(lambda start: itertools.islice(batches(), start, None), count, classes, test, config, seed)


def lars_probe_on_crops(
    describe: Callable[[Tensor], Tensor],
    dataset: ImageDataset,
    test: Features,
    transform: TransformConfig,
    *,
    config: LarsConfig,
    seed: int = 0,
    images_at_once: int = 256,
    num_workers: int = 0,
    keep: Path | None = None,
    on_images: Callable[[int], None] | None = None,
) -> ProbeResult:
    """The published protocol with the differences of `RANDOM_CROPS`: a new random crop of every image in every epoch.

    Features are computed anew in every epoch. describe: images in [0, 1] (n, c, h, w) -> features (n, d).
    transform: `probe_crops` for the paper's, whose test images are cropped by `evaluation_transform`.
    keep: file for the state after every epoch, from which an interrupted call is resumed.
    Raises NoClasses for a data set without labels, and as `check_pair`.
    """
    labels = torch.from_numpy(labels_of(dataset))
    placeholder = test.features.new_zeros(1, test.features.shape[1]).expand(len(labels), -1)  # takes no memory
    classes = check_pair(Features(placeholder, labels), test)
    batch_size = _lars_batch_size(config, len(dataset))
    steps = config.epochs * (len(dataset) // batch_size)

    share = _in_parts(batch_size, images_at_once)

    def batches(start: int) -> Iterator[Features]:
        loader = iter(
            TrainLoader(
                dataset, build_transform(transform), share=share, seed=seed, num_workers=num_workers, start=start
            )
        )
        for _ in range(start, steps):
            features, truth = [], []
            for batch in itertools.islice(loader, share.parts):
                truth.append(batch["labels"])
                for part in batch["images"].split(images_at_once):
                    features.append(describe(images.to_float(part)).float().cpu())
                    if on_images is not None:
                        on_images(len(part))
            yield Features(torch.cat(features), torch.cat(truth))

    return _lars(batches, len(dataset), classes, test, config, seed, keep)


def _in_parts(batch_size: int, images_at_once: int) -> Share:
    """The whole batch, in equal parts of few images, at least `images_at_once`, that a worker reads at a time."""
    parts = (parts for parts in range(batch_size, 0, -1) if batch_size % parts == 0)
    return Share(batch_size, next(count for count in parts if batch_size // count >= min(images_at_once, batch_size)))


def probe_crops(size: tuple[int, int], scale: tuple[float, float] = (0.2, 1.0)) -> TransformConfig:
    """The training crops of the public code: area and shape drawn once, bicubic, half of them mirrored."""
    return TransformConfig(size=size, augmentation="crop_flip", scale=scale, interpolation="bicubic", crop_draws="once")


def _lars_batch_size(config: LarsConfig, count: int) -> int:
    return min(config.batch_size, max(2, count // 4))  # BatchNorm needs two


def _lars(
    batches: Callable[[int], Iterator[Features]],
    count: int,
    classes: int,
    test: Features,
    config: LarsConfig,
    seed: int,
    keep: Path | None = None,
) -> ProbeResult:
    """Train the head for `config.epochs` epochs of `count` images; measure its accuracy on `test`.

    batches: start step -> batches from that step on. keep: file for the state after every epoch.
    """
    batch_size, width = _lars_batch_size(config, count), test.features.shape[1]
    norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
    head = nn.Linear(width, classes)
    nn.init.trunc_normal_(head.weight, std=0.01, generator=rng.generator(seed, "probe weights"))
    nn.init.zeros_(head.bias)
    optimizer = lars_optimizer(head, config)
    per_epoch = count // batch_size
    peak, movement = config.base_learning_rate * batch_size / 256, 0.0
    start, settings = 0, {"config": asdict(config), "seed": seed, "images": count, "batch_size": batch_size}
    if keep is not None and keep.is_file():
        state = torch.load(keep, weights_only=True)
        if state.get("settings") == settings:
            start, movement = state["step"], state["movement"]
            for module, name in ((head, "head"), (norm, "norm"), (optimizer, "optimizer")):
                module.load_state_dict(state[name])
    for step, batch in enumerate(batches(start), start):
        rate = learning_rate(step / per_epoch, peak, config)
        movement += rate * config.trust_coefficient / (1 - config.momentum)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = functional.cross_entropy(head(norm(batch.features)), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if keep is not None and (step + 1) % per_epoch == 0:
            state = {"settings": settings, "step": step + 1, "movement": movement, "head": head.state_dict()}
            state |= {"norm": norm.state_dict(), "optimizer": optimizer.state_dict()}
            with atomic.replacing(keep) as temporary:
                torch.save(state, temporary)
    if movement < ENOUGH_MOVEMENT:
        logger.warning(
            "LARS is far from converged after %d epochs of %d images: its accuracy is no measure of the features. "
            "Use the lbfgs protocol, or more epochs",
            config.epochs,
            count,
        )
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: PT018  # tracked by default
    trained = LinearHead(
        norm.running_mean, (norm.running_var + norm.eps).sqrt(), head.weight.detach(), head.bias.detach()
    )
    with torch.inference_mode():
        scores = trained(test.features)
    reported = {"epochs": config.epochs, "batch_size": batch_size, "learning_rate": peak, "seed": seed}
    return ProbeResult.of(scores, test.labels, f"lars_{config.epochs}ep", reported, trained)


def learning_rate(epoch: float, peak: float, config: LarsConfig) -> float:
    """Linear warm-up from 0, then a cosine to 0; `epoch` may be fractional."""
    if epoch < config.warmup_epochs:
        return peak * epoch / config.warmup_epochs
    done = (epoch - config.warmup_epochs) / max(1, config.epochs - config.warmup_epochs)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def lars_optimizer(head: nn.Linear, config: LarsConfig) -> torch.optim.Optimizer:
    """LARS that adapts the step of the weight matrix but not of the bias; no weight decay."""
    groups = [{"params": [head.weight], "always_adapt": True}, {"params": [head.bias], "always_adapt": False}]
    return Lars(groups, lr=0.0, momentum=config.momentum, weight_decay=0.0, trust_coeff=config.trust_coefficient)
