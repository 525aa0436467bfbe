"""I-JEPA's formulas with plain loops (Assran et al. 2023, section 3)."""

from tests.reference.models import Rows, layer_norm


def block(grid: tuple[int, int], top: int, left: int, height: int, width: int) -> list[int]:
    """Patches of a block, row by row, in a grid whose patches are counted row by row."""
    return [row * grid[1] + column for row in range(top, top + height) for column in range(left, left + width)]


def is_block(grid: tuple[int, int], patches: list[int]) -> tuple[int, int] | None:
    """Height and width, if some patches in their order are all those of one block inside the grid."""
    rows, columns = [place // grid[1] for place in patches], [place % grid[1] for place in patches]
    height, width = max(rows) - min(rows) + 1, max(columns) - min(columns) + 1
    return (height, width) if block(grid, min(rows), min(columns), height, width) == patches else None


def loss(predicted: list[list[Rows]], target: list[Rows], blocks: list[list[list[int]]]) -> float:
    """Mean squared error between predictions of each block's patches and the layer-normalised targets there.

    predicted: image, block, patch, number. target: image, patch of the whole image, number. blocks: their patches.
    """
    terms = []
    for image, image_blocks in enumerate(blocks):
        for number, patches in enumerate(image_blocks):
            for place, patch in enumerate(patches):
                wanted = layer_norm(target[image][patch], 1e-6)
                for found, right in zip(predicted[image][number][place], wanted, strict=True):
                    terms.append((found - right) ** 2)
    return sum(terms) / len(terms)


def moving_average(first: float, currents: list[float], momentum: float) -> list[float]:
    """The target weight after each of the steps: m_t w + (1 - m_t) x, with m_t from `momentum` linearly to 1."""
    values = []
    for step, current in enumerate(currents):
        decay = momentum + (1 - momentum) * step / len(currents)
        first = decay * first + (1 - decay) * current
        values.append(first)
    return values
