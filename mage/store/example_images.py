"""Real images beside the weights of a packaged model, so that it can be tried without its data set.

Letters: n images, c channels, h w pixels.
"""

from pathlib import Path

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from mage import images
from mage.store import packaged

EXAMPLES = "examples.png"
COLUMNS = 8
"""Images in a row of the file."""


def write_examples(folder: Path, pictures: UInt8[Tensor, "n c h w"]) -> None:
    """Write real images beside the weights, without margins, so that a model can be tried without its data set.

    Raises ValueError unless their number is a multiple of the columns.
    """
    count, channels, _, width = pictures.shape
    if count % COLUMNS:
        raise ValueError(f"examples fill rows of {COLUMNS}, which {count} images do not")
    grid = pictures.unflatten(0, (-1, COLUMNS)).permute(2, 0, 3, 1, 4).reshape(channels, -1, COLUMNS * width)
    images.save_png(folder / EXAMPLES, images.to_float(grid))


def read_examples(name: str) -> tuple[UInt8[Tensor, "n c h w"], list[str]]:
    """Real images, from the test split of a packaged model's data, and their classes.

    Raises ValueError for a name without examples.
    """
    labels = packaged.card_of(name).examples
    if not labels:
        raise ValueError(f"the packaged model {name!r} has no examples")
    path = packaged.FOLDER / name / EXAMPLES
    with Image.open(path) as picture:
        grid = images.from_pil(picture, 1 if picture.mode == "L" else 3)
    rows, side = len(labels) // COLUMNS, grid.shape[2] // COLUMNS
    pictures = grid.view(len(grid), rows, -1, COLUMNS, side).permute(1, 3, 0, 2, 4).flatten(0, 1)
    return pictures, labels
