"""Draw the pictures of README and docs from the packaged models: `python docs/pictures.py`.

overview.png: samples by class, an image filled in from fewer and fewer tokens, edits. Nothing is selected: seed 0, and
the first of the images that come with the models.
masking.png: which tokens are masked and dropped at three mask ratios.
"""

from pathlib import Path

import torch
from torch import Tensor

import mage
from mage import images, pictures
from mage.masking import mask_from_noise
from mage.store import packaged
from mage.store.example_images import read_examples

FOLDER = Path(__file__).parent / "pictures"
RATIOS = (0.5, 0.75, 0.9)
SHOWN = 10


def generated(name: str) -> Tensor:
    """A row of samples for each of the model's classes."""
    model = mage.load(packaged.FOLDER / name)
    names = model.class_names
    samples = model.generate(SHOWN * len(names), classes=[name for name in names for _ in range(SHOWN)], seed=0)
    rows = list(zip(names, samples.cpu().split(SHOWN), strict=True))
    return pictures.labelled_rows(rows, side=48)


def filled_in(name: str) -> Tensor:
    """Images from fewer and fewer of their tokens, edits, and samples."""
    model = mage.load(packaged.FOLDER / name)
    shown = images.to_float(read_examples(name)[0][:SHOWN])
    rows = [("image", shown)]
    for ratio in RATIOS:
        rows.append((f"{ratio:.0%} masked", model.reconstruct(shown, mask_ratio=ratio).cpu()))
    height, width = model.image_size
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[:, width // 2 :] = True
    rows.append(("right half hidden", torch.where(mask, 0.5, shown)))
    rows.append(("and drawn anew", model.edit(shown, mask, seed=0).cpu()))
    for label, samples in zip(
        ("from nothing", "", "", ""), model.generate(4 * SHOWN, seed=0).cpu().split(SHOWN), strict=True
    ):
        rows.append((label, samples))
    return pictures.labelled_rows(rows, side=48)


def beside(parts: list[Tensor], gap: int = 24) -> Tensor:
    """Pictures side by side on white, in RGB, their tops in line."""
    height = max(part.shape[1] for part in parts)
    columns = []
    for part in parts:
        rgb = part.expand(3, -1, -1)
        columns += [torch.cat([rgb, rgb.new_ones(3, height - rgb.shape[1], rgb.shape[2])], dim=1)]
        columns += [rgb.new_ones(3, height, gap)]
    return torch.cat(columns[:-1], dim=2)


def masking() -> Tensor:
    """One image's tokens at three mask ratios: kept, masked, and dropped before the encoder."""
    model = mage.load(packaged.FOLDER / "cifar10")
    image = images.enlarge(images.to_float(read_examples("cifar10")[0][12]), 320)
    rows, columns = model.require_tokenizer().grid
    noise = torch.rand(1, rows * columns, generator=torch.Generator().manual_seed(0))

    def cells(chosen: Tensor) -> Tensor:
        side = image.shape[1] // rows
        return chosen.view(rows, columns).repeat_interleave(side, 0).repeat_interleave(side, 1)

    parts = [("image", image)]
    for ratio in (0.55, 0.75, 0.95):
        mask = mask_from_noise(noise, ratio)
        shown = torch.where(cells(mask.masked), image.new_tensor([0.88, 0.44, 0.23])[:, None, None], image)
        shown = torch.where(cells(mask.dropped), image.new_ones(3)[:, None, None], shown)
        parts.append((f"{ratio:.0%} masked", shown))
    return pictures.panels(parts)


def main() -> None:
    """Write the pictures."""
    images.save_png(FOLDER / "overview.png", beside([generated("cifar10"), filled_in("digits")]))
    images.save_png(FOLDER / "masking.png", masking())


if __name__ == "__main__":
    main()
