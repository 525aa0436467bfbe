"""Linear probes, against their minimal cost: feature passes, plus the head's training on fixed crops."""

import torch

from mage import images, rng
from mage.benchmarks.work import OURS, Bench, Work
from mage.data.datasets import ArrayDataset
from mage.data.transforms import TransformConfig
from mage.evaluation.features import Features, extract_features
from mage.evaluation.lars_probe import LarsConfig, lars_probe, lars_probe_on_crops, probe_crops

CROP_EPOCHS = 3
"""Every epoch is a separate pass, so that a few are as informative as 90."""


def noise(count: int, channels: int, size: tuple[int, int]) -> ArrayDataset:
    """Labelled noise, as a data set in memory."""
    pixels = torch.randint(256, (count, channels, *size), dtype=torch.uint8, generator=rng.generator(0, "noise"))
    return ArrayDataset("noise", pixels, (torch.arange(count) % 10).numpy(), tuple(map(str, range(10))))


def probe(bench: Bench) -> list[Work]:
    """Ours from images to accuracy; the floor is one feature pass and one training of the head."""
    model, count = bench.model, 8 * bench.batch
    train = noise(count, model.channels, model.image_size)
    test = noise(bench.batch, model.channels, model.image_size)
    transform = TransformConfig(size=model.image_size, augmentation="none")

    def described(data: ArrayDataset) -> Features:
        return extract_features(model.features, data, transform, batch_size=bench.batch)

    ready = described(train), described(test)

    def ours() -> object:
        return lars_probe(described(train), described(test), config=LarsConfig())

    def one_pass(data: ArrayDataset) -> None:
        for index in range(0, len(data), bench.batch):
            pixels = torch.stack([data.load(i) for i in range(index, index + bench.batch)])
            model.features(images.to_float(pixels), batch_size=bench.batch)

    def floor() -> object:
        one_pass(train)
        one_pass(test)
        return lars_probe(*ready, config=LarsConfig())

    def ours_on_crops() -> object:
        crops = probe_crops(model.image_size)
        config = LarsConfig(epochs=CROP_EPOCHS, warmup_epochs=0)
        return lars_probe_on_crops(model.features, train, ready[1], crops, config=config, images_at_once=bench.batch)

    def crops_floor() -> object:
        for _ in range(CROP_EPOCHS):
            one_pass(train)
        return None

    return [
        Work("probe_fixed_crops", count, {OURS: ours, "floor": floor}),
        Work("probe_random_crops", count * CROP_EPOCHS, {OURS: ours_on_crops, "floor": crops_floor}),
    ]
