"""Judging samples: a classifier trained on real images, and a search for copies of training images.

Neither is a published protocol; both answer what a newcomer asks first: can one see what it is, and is it new?

Letters: n images, c channels, h w pixels, k classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mage import rng
from mage.data.datasets import ImageDataset
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.images import to_float


def train_judge(
    images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], *, epochs: int = 8, seed: int = 0
) -> nn.Module:
    """A small convolutional classifier of real images, trained for a few epochs; returned in eval mode."""
    classes = int(labels.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.stream_seed(seed, "judge"))
        network = nn.Sequential(
            nn.Conv2d(images.shape[1], 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (images.shape[2] // 4) * (images.shape[3] // 4), 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=rng.generator(seed, "judge order", epoch))
        for chosen in order.split(64):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class Verdict:
    """What a judge says of some images; all numbers are shares from 0 to 1."""

    confident_share: float
    """Images whose most probable class has a probability above 0.8."""
    class_shares: list[float]
    """How often each class is the most probable one."""


def judge(network: nn.Module, images: Float[Tensor, "n c h w"]) -> Verdict:
    """Classify images in [0, 1]."""
    probability = torch.cat([network(part) for part in images.float().split(500)]).softmax(dim=1)
    best = probability.max(dim=1)
    counts = torch.bincount(best.indices, minlength=probability.shape[1])
    return Verdict(float((best.values > 0.8).double().mean()), (counts / len(images)).tolist())


@dataclass(frozen=True)
class Nearest:
    """Each sample's nearest training image, by Euclidean distance of the pixels."""

    distances: Float[Tensor, " n"]
    indices: Int[Tensor, " n"]


def nearest_training_images(samples: Float[Tensor, "n c h w"], training: Float[Tensor, "m c h w"]) -> Nearest:
    """Search all training images, in chunks."""
    bank = training.flatten(1).float()
    found = [torch.cdist(part, bank).min(dim=1) for part in samples.flatten(1).float().split(250)]
    return Nearest(torch.cat([part.values for part in found]), torch.cat([part.indices for part in found]))


def near_copy_share(samples: Nearest, test: Nearest) -> float:
    """Share of samples nearer to a training image than the nearest one per cent of real test images are."""
    return float((samples.distances < test.distances.quantile(0.01)).double().mean())


def judge_features(
    dataset: ImageDataset, image_size: tuple[int, int], *, epochs: int = 8, seed: int = 0
) -> Callable[[Tensor], Tensor]:
    """The last hidden layer of a judge trained on a labelled data set: images (n, c, H, W) -> features (n, 128).

    An extractor for Frechet distances that no training loss of this library has seen.
    """
    if dataset.labels is None:
        raise ValueError(f"{dataset.name} has no labels, which a judge is trained on")
    transform = build_transform(TransformConfig(size=image_size))
    batches = list(evaluation_batches(dataset, transform, batch_size=256))
    pixels = torch.cat([batch["images"] for batch in batches])
    network = train_judge(to_float(pixels), torch.cat([batch["labels"] for batch in batches]), epochs=epochs, seed=seed)
    assert isinstance(network, nn.Sequential)
    hidden = network[:-1]

    @torch.inference_mode()
    def features(pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        found: Tensor = hidden(pictures.cpu().float())
        return found

    return features
