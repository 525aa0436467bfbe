"""Encodes the images of a shard of a token cache. What is done of it is kept, so that a stopped call goes on there.

Letters: n images, v views, l tokens, c channels, H W pixels.
"""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mage import array_files, atomic, images, rng
from mage.data.image_sets import CorruptImage, ImageDataset, load_reduced
from mage.data.transforms import Transform, needed_side
from mage.data.workers import compute

BEGUN = "begun.npz"
SECONDS = 60.0
"""Between two times that what is done of a shard is written."""


@dataclass(frozen=True)
class Views:
    """Computes views of images; every worker process has a copy."""

    dataset: ImageDataset
    apply: Transform
    views: int
    seed: int

    def __call__(self, indices: range) -> tuple[Tensor | None, list[int], list[str], int]:
        """Views (n v, c, H, W) uint8, labels, unreadable files, and the number of `indices`."""
        pixels: list[Tensor] = []
        labels: list[int] = []
        skipped: list[str] = []
        for index in indices:
            try:
                image = load_reduced(self.dataset, index, needed_side(self.apply))
            except CorruptImage as error:
                skipped.append(error.path)
                continue
            pixels += [self.apply(image, rng.generator(self.seed, "view", index, view)) for view in range(self.views)]
            labels.append(-1 if self.dataset.labels is None else int(self.dataset.labels[index]))
        return torch.stack(pixels) if pixels else None, labels, skipped, len(indices)


class Encoded(NamedTuple):
    """Images of a shard after each other."""

    tokens: np.ndarray
    """(n, v, l), of the readable ones."""
    labels: list[int]
    """Of the readable ones."""
    skipped: list[str]
    """Paths of the unreadable ones."""
    total: int
    """Number of images, with the unreadable ones."""


@dataclass(frozen=True)
class Begun:
    """The file of what is done of the shard of the images `chosen`."""

    folder: Path
    chosen: range
    views: int
    length: int
    """Tokens of an image."""
    num_codes: int

    def keep(self, part: Encoded) -> None:
        """Write it. Raises OSError as for any file."""
        with atomic.replacing(self.folder / BEGUN) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                place=np.array([self.chosen.start, self.chosen.stop, part.total]),
                tokens=part.tokens.astype("<u2"),
                labels=np.array(part.labels, "<i4"),
                skipped=np.frombuffer(json.dumps(part.skipped).encode(), np.uint8),
            )

    def read(self) -> list[Encoded]:
        """What a stopped call has kept; nothing if that is of another shard, or damaged."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found = array_files.read_npz(self.folder / BEGUN)
            first, stop, count = found["place"].tolist()
            part = Encoded(found["tokens"], found["labels"].tolist(), json.loads(found["skipped"].tobytes()), count)
            readable = count - len(part.skipped)
            if (
                (first, stop) == (self.chosen.start, self.chosen.stop)
                and 0 < count <= len(self.chosen)
                and part.tokens.shape == (readable, self.views, self.length)
                and len(part.labels) == readable
                and part.tokens.dtype == np.dtype("<u2")
                and all(isinstance(path, str) for path in part.skipped)
                and all(isinstance(label, int) for label in part.labels)
                and (not readable or part.tokens.max() < self.num_codes)
            ):
                return [part]
        return []

    def joined(self, parts: Sequence[Encoded]) -> Encoded:
        """Parts as one."""
        return Encoded(
            np.concatenate([np.empty((0, self.views, self.length), "<u2"), *(part.tokens for part in parts)]),
            [label for part in parts for label in part.labels],
            [path for part in parts for path in part.skipped],
            sum(part.total for part in parts),
        )


def remove_begun(folder: Path) -> None:
    """Remove the file of a begun shard, if there is one."""
    (folder / BEGUN).unlink(missing_ok=True)


def encode_shard(
    begun: Begun,
    work: Views,
    encode: Callable[[Tensor], Tensor],
    batch_size: int,
    workers: int,
    on_images: Callable[[int], None],
) -> Encoded:
    """A shard, from where a stopped call has come to; what is done is kept once a minute, and when this call stops."""
    parts = begun.read()
    kept, written, done = time.monotonic(), len(parts), sum(part.total for part in parts)
    if done:
        on_images(done)
    per_batch, chosen = max(1, batch_size // work.views), begun.chosen
    chunks = [chosen[first : first + per_batch] for first in range(done, len(chosen), per_batch)]
    try:
        for pixels, labels, corrupt, count in compute(work, chunks, workers):
            tokens = np.empty((0, work.views, begun.length), "<u2")
            if pixels is not None:
                tokens = encode(images.to_float(pixels)).cpu().numpy().reshape(-1, work.views, begun.length)
            parts.append(Encoded(tokens, labels, corrupt, count))
            if time.monotonic() - kept > SECONDS:
                begun.keep(begun.joined(parts))
                kept, written = time.monotonic(), len(parts)
            on_images(count)
    except BaseException:
        if len(parts) > written:
            with contextlib.suppress(OSError):  # of a full disk, for example, after the one that is on its way
                begun.keep(begun.joined(parts))
        raise
    return begun.joined(parts)
