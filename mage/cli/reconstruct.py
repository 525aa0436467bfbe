"""`mage reconstruct`: the paper's figure of images reconstructed from fewer and fewer tokens."""

import torch

import mage
from mage import images, pictures
from mage.cli.console import emit
from mage.cli.options.reconstruct import Options

IN_A_ROW = 10
"""Images side by side; more go on below."""


def run(options: Options) -> None:
    """Draw the figure."""
    if not options.image:
        raise ValueError("--image needs at least one file")
    model = mage.load(options.model, precision=options.precision, device=options.device)
    originals = torch.stack(
        [images.fit(images.load_image(path, model.channels), model.image_size) for path in options.image]
    )
    batch = images.to_float(originals)
    rows = [("original", batch)]
    for ratio in options.mask_ratio:
        reconstruction = model.reconstruct(batch, mask_ratio=ratio, seed=options.seed, steps=options.steps)
        rows.append((f"{ratio:.0%} masked", reconstruction.cpu()))
    images.save_png(options.out, pictures.labelled_rows(rows, most=IN_A_ROW))
    result = {"out": str(options.out), "images": len(batch), "mask_ratios": options.mask_ratio}
    emit(
        options,
        result,
        f"{options.out}: {len(batch)} images, rows: original, then {len(options.mask_ratio)} mask ratios",
    )
