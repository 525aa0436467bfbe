"""An independent judge of samples: a small convolutional network, trained once on real images.

The recipe is that of Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), with half the width: the first
layer whitens patches, convolutions start as identities, the learning rate is large. No training loss of this library
uses this network.

Letters: n images, c channels, H W pixels, h w half of them, d feature width, k classes.
"""

import hashlib
import itertools
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from mage import atomic, images, rng
from mage.data.datasets import ImageDataset, evenly
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.device import autocast
from mage.evaluation.extractors import Extractor, Seen

WIDTHS = (32, 128, 128)
"""Channels at each of three resolutions."""
VERSION = 1
"""Part of the file name of a stored judge: increase it when the network or its training changes."""
MOST_BYTES = 2**32
"""Of a judge's training images, which are all in memory: 1.4 million of 32 x 32 RGB pixels, 22,000 of 256 x 256."""


@dataclass(frozen=True)
class JudgeConfig:
    """Training of a judge."""

    epochs: int = 4
    """Passes over the training images: with 4, a judge of 4,000 images of MNIST has an accuracy of 99 %."""
    batch_size: int = 500
    """Images per step; cut to a fortieth of a small training set."""
    mirror: bool = False
    """Mirror half of the images; for data whose classes do not depend on left and right."""
    soften: bool = False
    """Reduce the resolution of half of the batches, so that the judge relies on shapes and not on details that tokens
    do not encode."""
    smoothing: float = 0.0
    """Label smoothing: slightly higher accuracy, but confidence stays below 1 minus this."""
    seed: int = 0
    """Seed of weights, order and augmentation."""


class Judge(nn.Module):
    """Whitening of 2 x 2 patches, three groups of two convolutions, a linear layer."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        patch = 4 * channels
        self.channels = channels
        self.whiten = nn.Conv2d(channels, patch, 2).requires_grad_(False)
        widths = (2 * patch, *WIDTHS)
        self.groups = nn.Sequential(*(Group(*pair) for pair in itertools.pairwise(widths)))
        self.head = nn.Linear(WIDTHS[-1], num_classes, bias=False)

    @torch.no_grad()
    def fit_whitening(self, pixels: UInt8[Tensor, "n c H W"]) -> None:
        """Set the first layer, which is not trained, so that it decorrelates the patches of these images."""
        patches = functional.unfold(images.to_float(pixels), 2, stride=2).transpose(1, 2).flatten(0, 1).double()
        values, vectors = torch.linalg.eigh(patches.T.cov())
        rows = vectors.T / (values + 5e-4).sqrt()[:, None]
        self.whiten.weight.copy_(rows.view_as(self.whiten.weight))
        assert self.whiten.bias is not None
        self.whiten.bias.copy_(-(rows @ patches.mean(dim=0)))

    def features(self, pixels: UInt8[Tensor, "n c H W"]) -> Float[Tensor, "n d"]:
        """Input of the last layer: maxima of the feature maps."""
        x = self.whiten(images.to_float(pixels).contiguous(memory_format=torch.channels_last))
        x = self.groups(functional.gelu(torch.cat([x, -x], dim=1)))
        largest: Tensor = x.amax(dim=(2, 3))
        return largest

    def forward(self, pixels: UInt8[Tensor, "n c H W"]) -> Float[Tensor, "n k"]:
        """Class scores."""
        scores: Tensor = self.head(self.features(pixels))
        return scores / 9


class Group(nn.Module):
    """Two convolutions with a pooling between them that halves the resolution."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(n, width, 3, padding=1, bias=False) for n in (width_in, width))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, momentum=0.4) for _ in range(2))
        for convolution in (self.first, self.second):
            nn.init.dirac_(convolution.weight[: convolution.in_channels])
        for norm in self.norms:
            norm.weight.requires_grad_(False)

    def forward(self, x: Float[Tensor, "n c H W"]) -> Float[Tensor, "n d h w"]:
        """Feature maps of half the height and width; a single row or column of pixels is not reduced."""
        x = self.first(x)
        x = functional.gelu(self.norms[0](functional.max_pool2d(x, 2) if min(x.shape[2:]) > 1 else x))
        return functional.gelu(self.norms[1](self.second(x)))


def train_judge(
    pixels: UInt8[Tensor, "n c H W"],
    labels: Int[Tensor, " n"],
    config: JudgeConfig = JudgeConfig(),  # frozen
    *,
    precision: str = "float32",
    device: torch.device | str = "cpu",
) -> Judge:
    """Train by SGD on shifted images with one cycle of the learning rate; in evaluation mode, without gradients.

    Raises ValueError for fewer than two images.
    """
    device = torch.device(device)
    if len(pixels) < 2:
        raise ValueError(f"a judge needs at least 2 training images, not {len(pixels)}")
    batch_size = min(config.batch_size, max(2, len(pixels) // 40))
    steps = config.epochs * (len(pixels) // batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.stream_seed(config.seed, "judge"))
        judge = Judge(pixels.shape[1], int(labels.max()) + 1)
    first = torch.randperm(len(pixels), generator=rng.generator(config.seed, "judge whitening"))[:5000]
    judge.fit_whitening(pixels[first])
    judge = _placed(judge, device)
    learned = [parameter for parameter in judge.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, 1.0, momentum=0.85, nesterov=True, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=steps,
        pct_start=0.25 if steps != 4 else 0.3,  # with a quarter of 4 steps it divides by 0
        anneal_strategy="linear", cycle_momentum=False, div_factor=5, final_div_factor=10,
    )  # fmt: skip
    padded = functional.pad(pixels, (2, 2, 2, 2), mode="reflect")
    for epoch in range(config.epochs):
        generator = rng.generator(config.seed, "judge order", epoch)
        order = torch.randperm(len(pixels), generator=generator)[: len(pixels) // batch_size * batch_size]
        for chosen in order.split(batch_size):
            batch = _augmented(padded, chosen, pixels.shape[2:], config, generator)
            with autocast(precision, device):
                scores = judge(batch.to(device))
            loss = functional.cross_entropy(scores.float(), labels[chosen].to(device), label_smoothing=config.smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return _frozen(judge)


def load_or_train(
    pixels: UInt8[Tensor, "n c H W"],
    labels: Int[Tensor, " n"],
    config: JudgeConfig = JudgeConfig(),  # frozen
    *,
    cache: Path | None,
    precision: str = "float32",
    device: torch.device | str = "cpu",
) -> Judge:
    """The judge for these images and settings, from the folder `cache`, or trained and stored there; None: not stored.

    If the folder cannot be written to, the judge is trained in every call. Raises ValueError for fewer than two images.
    """
    path = cache / f"judge-{_fingerprint(pixels, labels, config)}.safetensors" if cache is not None else None
    if path is not None and path.is_file():
        judge = Judge(pixels.shape[1], int(labels.max()) + 1)
        judge.load_state_dict(load_file(path))
        return _frozen(_placed(judge, torch.device(device)))
    judge = train_judge(pixels, labels, config, precision=precision, device=device)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic.replacing(path) as temporary:
                save_file({name: value.contiguous().cpu() for name, value in judge.state_dict().items()}, temporary)
        except OSError:
            pass
    return judge


def judge_of(
    dataset: ImageDataset,
    image_size: tuple[int, int],
    config: JudgeConfig = JudgeConfig(),  # frozen
    *,
    cache: Path | None,
    precision: str = "float32",
    device: torch.device | str = "cpu",
) -> Judge:
    """The judge for a labelled data set, its images cropped to `image_size`. Raises ValueError if it has no labels."""
    if dataset.labels is None:
        raise ValueError(f"{dataset.name} has no labels, which a judge is trained on")
    pixels, labels, count = torch.empty(0, dtype=torch.uint8), torch.empty(len(dataset), dtype=torch.int64), 0
    for batch in evaluation_batches(dataset, build_transform(TransformConfig(size=image_size)), batch_size=256):
        if not count:
            pixels = batch["images"].new_empty(len(dataset), *batch["images"].shape[1:])
        here = slice(count, count + len(batch["images"]))
        pixels[here], labels[here] = batch["images"], batch["labels"]
        count = here.stop
    return load_or_train(pixels[:count], labels[:count], config, cache=cache, precision=precision, device=device)


def judged_part(dataset: ImageDataset, channels: int, image_size: tuple[int, int]) -> ImageDataset:
    """As many images of a data set, spread over it, as a judge of such images is trained on: those of MOST_BYTES."""
    most = max(2, MOST_BYTES // (channels * image_size[0] * image_size[1]))
    return dataset if len(dataset) <= most else evenly(dataset, most)


def judge_extractor(judge: Judge) -> Extractor:
    """Features and class scores of the judge, for metrics of generated and reconstructed images."""
    device = judge.head.weight.device
    weights = hashlib.sha256(b"".join(value.cpu().numpy().tobytes() for value in judge.state_dict().values()))

    def see(pixels: Tensor) -> Seen:
        features = judge.features(pixels[:, : judge.channels].to(device))
        return Seen(features, judge.head(features) / 9)

    return Extractor("judge", f"judge_{weights.hexdigest()[:16]}", see)


def _placed(judge: Judge, device: torch.device) -> Judge:
    judge.to(device)
    judge.to(memory_format=torch.channels_last)
    return judge


def _frozen(judge: Judge) -> Judge:
    judge.eval()
    judge.requires_grad_(False)
    return judge


def _augmented(
    padded: Tensor, chosen: Tensor, size: torch.Size, config: JudgeConfig, generator: torch.Generator
) -> Tensor:
    """Images shifted by up to two pixels, and mirrored and softened if the configuration has it."""
    top, left = torch.randint(0, 5, (2, len(chosen), 1), generator=generator)
    rows, columns = top + torch.arange(size[0]), left + torch.arange(size[1])
    if config.mirror:
        flipped = torch.rand(len(chosen), 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    x = padded[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if config.soften and torch.rand((), generator=generator) < 0.5:
        x = _softened(x, share=0.3 + 0.6 * float(torch.rand((), generator=generator)))
    return x


def _softened(pixels: Tensor, *, share: float) -> Tensor:
    """Images (uint8) reduced to `share` of their height and width and enlarged again."""
    height, width = pixels.shape[2:]
    small = functional.interpolate(pixels.float(), (round(height * share), round(width * share)), mode="area")
    enlarged = functional.interpolate(small, (height, width), mode="bicubic", align_corners=False)
    return enlarged.round().clamp(0, 255).to(torch.uint8)


def _fingerprint(pixels: Tensor, labels: Tensor, config: JudgeConfig) -> str:
    """Hash of images, labels, settings and version of the network."""
    digest = hashlib.sha256(repr((VERSION, tuple(pixels.shape), sorted(asdict(config).items()))).encode())
    digest.update(pixels.contiguous().view(-1).numpy().data)  # without a copy
    digest.update(labels.to(torch.int64).contiguous().numpy().data)
    return digest.hexdigest()[:24]
