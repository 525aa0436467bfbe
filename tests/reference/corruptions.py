"""What corruptions are made with, by loops and by scipy, as the public code of ImageNet-C and CIFAR-10-C calls it."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]


def shuffled(image: Array, move: NDArray[np.int64], delta: int) -> Array:
    """(h, w, c); the assignment of two views at once copies, and does not swap."""
    x = image.copy()
    height, width = x.shape[:2]
    for h in range(height - delta, delta, -1):
        for w in range(width - delta, delta, -1):
            down, right = move[:, h, w]
            x[h, w], x[h + down, w + right] = x[h + down, w + right], x[h, w]
    return x


def zoom_blur(image: Array, factors: Array) -> Array:
    """(h, w, c), square."""
    side, total = image.shape[0], np.zeros_like(image)
    for factor in factors:
        cut = math.ceil(side / factor)
        top = (side - cut) // 2
        large = ndimage.zoom(image[top : top + cut, top : top + cut], (factor, factor, 1), order=1)
        top = (large.shape[0] - side) // 2
        total += large[top : top + side, top : top + side]
    return (image + total) / (len(factors) + 1)


def displaced(image: Array, move: Array) -> Array:
    """(h, w) and (2, h, w) of x and y."""
    y, x = np.meshgrid(*map(np.arange, image.shape), indexing="ij")
    return np.asarray(ndimage.map_coordinates(image, (y + move[1], x + move[0]), order=1, mode="reflect"))


def sheared(image: Array, move: Array) -> Array:
    """(h, w) and (3, 2) of x and y: three corners around the middle move; the edge is mirrored, the last pixel once."""
    middle, reach = np.array(image.shape[::-1]) // 2, min(image.shape) // 3
    corners = middle + np.array([[reach, reach], [reach, -reach], [-reach, -reach]])
    forth = np.linalg.solve(np.c_[corners, np.ones(3)], corners + move).T  # (x, y, 1) -> where it goes
    whole = np.linalg.inv(np.vstack([forth, [0, 0, 1]]))
    y, x = np.meshgrid(*map(np.arange, image.shape), indexing="ij")
    back = np.einsum("ij,jhw->ihw", whole, np.stack([x, y, np.ones_like(x)]))
    return np.asarray(ndimage.map_coordinates(image, (back[1], back[0]), order=1, mode="mirror"))


def disk(radius: float, blur: float) -> Array:
    """Of up to 8 pixels in a square of 17, softened by 3 x 3; of more in one that just holds it, by 5 x 5."""
    reach, soft = (8, 1) if radius <= 8 else (math.ceil(radius), 2)
    hard = np.array([[i * i + j * j <= radius**2 for j in range(-reach, reach + 1)] for i in range(-reach, reach + 1)])
    row = np.exp(-0.5 * (np.arange(-soft, soft + 1) / blur) ** 2)
    row /= row.sum()
    return np.asarray(ndimage.correlate(hard / hard.sum(), np.outer(row, row), mode="mirror"))


def motion(image: Array, radius: int, sigma: float, angle: float) -> Array:
    """(h, w): each pixel is a mean along the line that begins at it."""
    steps = range(2 * radius + 1)
    weights = [math.exp(-(step**2) / (2 * sigma**2)) for step in steps]
    result = np.zeros_like(image)
    for y, x in np.ndindex(*image.shape):
        for step, weight in zip(steps, weights, strict=True):
            row = y + math.ceil(step * math.sin(math.radians(angle)) - 0.5)
            column = x + math.ceil(step * math.cos(math.radians(angle)) - 0.5)
            row, column = min(max(row, 0), image.shape[0] - 1), min(max(column, 0), image.shape[1] - 1)
            result[y, x] += weight / sum(weights) * image[row, column]
    return result


def plasma(side: int, decay: float, noise: list[Array]) -> Array:
    """Diamond and square steps on a torus; noise: of each step in [-1, 1], in order."""
    field, draws = np.zeros((side, side)), iter(noise)
    step, wibble = side, 100.0
    while step >= 2:
        half, count = step // 2, side // step
        offsets = [((half, half), ((-half, -half), (-half, half), (half, -half), (half, half)))]
        cross = ((-half, 0), (half, 0), (0, -half), (0, half))
        offsets += [((0, half), cross), ((half, 0), cross)]
        for (top, left), around in offsets:
            drawn = next(draws)
            for i in range(count):
                for j in range(count):
                    y, x = i * step + top, j * step + left
                    mean = sum(field[(y + a) % side, (x + b) % side] for a, b in around) / 4
                    field[y, x] = mean + wibble**2 * drawn[i, j]
        step, wibble = half, wibble / decay
    return (field - field.min()) / (field.max() - field.min())
