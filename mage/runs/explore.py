"""What a folder holds: a map of its images, groups, near-duplicates and outliers (`mage explore`).

Letters: n images, d feature width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float64
from PIL import Image
from torch import Tensor

from mage import images
from mage.data.datasets import CorruptImage, spread
from mage.data.loaders import none_readable
from mage.data.named_images import NamedImages, named_images
from mage.data.read_ahead import read_ahead
from mage.data.transforms import TransformConfig, build_transform, needed_side
from mage.evaluation.clusters import Clusters, find_clusters
from mage.evaluation.folder_map import Projection, principal_components, project, standardised
from mage.evaluation.neighbours import Neighbourhood, neighbourhood
from mage.models.pooling import Pool
from mage.pipeline import Mage

THUMBNAIL = 96
"""Longer side of a thumbnail, in pixels."""


@dataclass(frozen=True)
class Exploration:
    """A folder's images with what their features say about them. Images are in the order of their names."""

    name: str
    files: tuple[str, ...]
    labels: tuple[str, ...]
    """Sub-folders; "" without one."""
    thumbnails: tuple[Image.Image, ...]
    projection: Projection
    clusters: Clusters
    neighbours: Neighbourhood
    total: int
    """Images in the folder, of which at most `limit` are here."""
    skipped: tuple[str, ...]
    """Files that cannot be read as images."""
    model: str
    """Model and pooling of the features, in a few words."""
    features: Float64[Tensor, "n d"]
    """As the model gives them."""


def explore(
    model: Mage,
    data: str | Path,
    *,
    limit: int = 2000,
    clusters: int | None = None,
    pool: Pool = "mean",
    split: str = "all",
    data_root: str | None = None,
    batch_size: int = 256,
    model_name: str = "a model",
    on_start: Callable[[int], None] | None = None,
    on_images: Callable[[int], None] | None = None,
) -> Exploration:
    """Describe at most `limit` images of a folder, spread over the order of their names.

    clusters: their number; None: chosen by the silhouette. on_start: called with the number of images, on_images after
    every batch. Raises ValueError for a folder without a readable image, and for more clusters than images.
    """
    source = named_images(data, split=split, data_root=data_root, channels=model.channels)
    count = min(limit, len(source))
    chosen = spread(len(source), count)
    if on_start is not None:
        on_start(count)
    kept: list[int] = []
    reasons: dict[str, str] = {}
    thumbnails: list[Image.Image] = []
    features: list[Tensor] = []
    cut = build_transform(TransformConfig(size=model.image_size))
    with read_ahead(source, chosen, at_least=max(needed_side(cut), THUMBNAIL)) as load:
        for start in range(0, count, batch_size):
            batch = []
            part = chosen[start : start + batch_size]
            for index in part:
                picture = _readable(load, source, index, reasons)
                if picture is not None:
                    kept.append(index)
                    thumbnails.append(thumbnail(picture))
                    batch.append(cut(picture, torch.Generator()))
            if batch:
                features.append(model.features(images.to_float(torch.stack(batch)), pool).cpu().double())
            if on_images is not None:
                on_images(len(part))
    if not kept:
        raise none_readable(source, reasons, count)
    described = torch.cat(features)
    x = standardised(described)
    components = principal_components(x)
    return Exploration(
        str(data),
        tuple(source.file(index) for index in kept),
        tuple(source.label(index) for index in kept),
        tuple(thumbnails),
        project(components),
        find_clusters(components, clusters),
        neighbourhood(x),
        len(source),
        tuple(source.skipped),
        f"{model_name}, {pool} features",
        described,
    )


def thumbnail(picture: Tensor) -> Image.Image:
    """A uint8 image (c, h, w) as RGB at most THUMBNAIL pixels long; small ones are enlarged by whole factors."""
    height, width = picture.shape[-2:]
    longer = max(height, width)
    image = images.to_pil(picture)
    if longer <= THUMBNAIL:
        factor = THUMBNAIL // longer
        return image.resize((width * factor, height * factor), Image.Resampling.NEAREST).convert("RGB")
    size = (max(1, width * THUMBNAIL // longer), max(1, height * THUMBNAIL // longer))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3).convert("RGB")


def _readable(load: Callable[[int], Tensor], source: NamedImages, index: int, reasons: dict[str, str]) -> Tensor | None:
    try:
        return load(index)
    except CorruptImage as error:
        source.skipped.append(error.path)
        reasons[error.path] = error.reason
        return None
