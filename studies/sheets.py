"""Pictures of a model for its card: samples, edits, and the training images nearest to samples.

Each is a PNG of less than 200 kB: one with more colours than that allows gets a palette.
"""

import io
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mage import atomic, images, pictures, rng
from mage.data.datasets import ImageDataset
from mage.data.transforms import TransformConfig
from mage.evaluation.near_copies import nearest_training_images
from mage.pipeline import Mage
from mage.runs.inputs import load_images

MOST_BYTES = 200_000
SAMPLES, EDITS, PAIRS = 64, 12, 6


def draw(model: Mage, train: ImageDataset, test: ImageDataset, folder: Path, *, mirrored: bool) -> None:
    """Write samples.png, edits.png and nearest.png into `folder`.

    train: the images that the model was trained on. mirrored: their mirror images count as well.
    """
    plain = TransformConfig(size=model.image_size)
    samples = model.generate(SAMPLES, seed=0).cpu()
    save(folder / "samples.png", images.enlarge(images.make_grid(samples, columns=8), 400))
    order = torch.randperm(len(test), generator=rng.generator(0, "sheet of edits")).tolist()
    save(folder / "edits.png", edits(model, images.to_float(load_images(test, order[:EDITS], plain))))
    training = load_images(train, list(range(len(train))), plain)
    save(folder / "nearest.png", nearest(samples, training, mirrored=mirrored))


def masks(size: tuple[int, int], cell: int) -> list[Bool[Tensor, "H W"]]:
    """What is redrawn of an image: its middle, its lower half, its right half. cell: pixels per side of a token."""
    height, width = size
    parts = []
    for rows, columns in (
        (slice(height // 4 // cell * cell, -(height // 4 // cell * cell) or None),) * 2,
        (slice(height // 2 // cell * cell, None), slice(None)),
        (slice(None), slice(width // 2 // cell * cell, None)),
    ):
        mask = torch.zeros(size, dtype=torch.bool)
        mask[rows, columns] = True
        parts.append(mask)
    return parts


def edits(model: Mage, given: Float[Tensor, "n c H W"]) -> Float[Tensor, "c gh gw"]:
    """Rows of images before, with the marked part in grey, and after; the three masks in turn."""
    kinds = masks(model.image_size, model.image_size[0] // model.require_tokenizer().grid[0])
    marked = torch.stack([kinds[number % len(kinds)] for number in range(len(given))])
    after = model.edit(given, marked, paste=True, seed=1).cpu()
    return pictures.labelled_rows(
        [("before", given), ("marked", torch.where(marked[:, None], 0.5, given)), ("after", after)]
    )


def nearest(
    samples: Float[Tensor, "n c h w"], training: UInt8[Tensor, "m c h w"], *, mirrored: bool
) -> Float[Tensor, "c gh gw"]:
    """Samples beside their nearest training images, with the root mean square difference of the pixels.

    On the left the closest pairs, on the right those in the middle of all.
    """
    near = nearest_training_images(samples, training, mirrored=mirrored)
    order = near.distances.argsort().tolist()
    pairs = min(PAIRS, len(order))
    middle = (len(order) - pairs) // 2
    blocks = []
    for chosen in (order[:pairs], order[middle : middle + pairs]):
        rows = []
        for index in chosen:
            difference = float(near.distances[index]) / samples[0].numel() ** 0.5
            rows.append(
                (f"{difference:.3f}", torch.stack([samples[index], images.to_float(training[near.indices[index]])]))
            )
        blocks.append(pictures.labelled_rows(rows))
    return torch.cat(blocks, dim=2)


def save(path: Path, picture: Float[Tensor, "c h w"]) -> None:
    """Write a PNG of at most MOST_BYTES if 256 colours, or else 32, allow it."""
    data = images.png_bytes(picture)
    for colours in (256, 32):
        if len(data) <= MOST_BYTES:
            break
        buffer = io.BytesIO()
        images.to_pil(picture).quantize(colours, dither=0).save(buffer, format="PNG", optimize=True)
        data = buffer.getvalue()
    atomic.write_bytes(path, data)
