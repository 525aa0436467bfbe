"""Classes for conditional training: a data set's labels, or clusters of a model's own features or of pixels.

Clusters replace labels where there are none: conditioning on a cluster improves generation, and every image can be
assigned to one.

Letters: n images, d feature width.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.cluster import KMeans, MiniBatchKMeans
from torch import Tensor
from torch.nn import functional

from mage import atomic, distributed, pictures
from mage.array_files import open_integers
from mage.data.token_cache import TokenCache
from mage.device import autocast
from mage.models import MAGETransformer
from mage.pipeline import Mage
from mage.pipeline.modes import evaluating
from mage.rng import stream_seed
from mage.runs.launch import Launch
from mage.training.conditions import ConditionConfig

CLUSTERS = "clusters.npy"
"""File in a run folder with the cluster of every image of its cache."""
MANY = 200_000
"""Number of images above which k-means works on mini-batches."""
SIDE = 16
"""Height and width in pixels of images whose pixels are clustered."""
MOST_COMPONENTS = 64
"""Principal components of features that are clustered, at most."""
SHARE = 0.99
"""Share of the variance that they hold."""


@dataclass(frozen=True)
class Conditions:
    """The classes that a network is conditioned on."""

    names: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    """Frequency of each class, with which images are generated that are asked for without one."""

    def notes(self) -> dict[str, Any]:
        """Class names and shares, for the model's notes."""
        notes: dict[str, Any] = {"class_names": list(self.names)} if self.names else {}
        return notes | ({"class_shares": list(self.shares)} if self.shares else {})


def from_labels(config: ConditionConfig, labels: np.ndarray | None, class_names: Sequence[str]) -> Conditions:
    """The classes of a labelled data set. Raises ValueError if it does not have what the recipe needs."""
    if config.source == "none":
        return Conditions()
    if config.source == "clusters":
        raise ValueError("conditions.source=clusters needs a token cache: leave out --online, or set it to none")
    if labels is None or labels.max() < 0:
        raise ValueError("conditions.source=labels, but the images have no labels; set it to clusters, which need none")
    names = list(class_names) + [str(number) for number in range(len(class_names), int(labels.max()) + 1)]
    known = labels[labels >= 0]
    return Conditions(tuple(names), tuple((np.bincount(known, minlength=len(names)) / len(known)).tolist()))


def from_cache(
    config: ConditionConfig,
    cache: TokenCache,
    model: Mage | None,
    launch: Launch,
    *,
    seed: int,
    tokenizer: Mage | None = None,
) -> tuple[Conditions, TokenCache]:
    """The classes for a cache of tokens, and the cache with these labels.

    model: its features are clustered, by the first process; without one, the pixels that the tokenizer restores are.
    The clusters are stored in the launch's folder for resumed runs, because another processor could compute slightly
    different ones.
    """
    if config.source != "clusters":
        return from_labels(config, cache.labels, cache.class_names), cache
    count, kept = config.clusters, launch.out / CLUSTERS
    if launch.resume and kept.is_file():
        labels = open_integers(kept)
    else:
        labels = distributed.by_first_process(lambda: _clusters(cache, model, tokenizer, count, launch, seed))
    shares = np.bincount(labels, minlength=count) / len(labels)
    names = [f"cluster {number}" for number in range(count)]
    labelled = copy.copy(cache)  # the same tokens
    labelled.labels, labelled.class_names = labels.astype(np.int64), tuple(names)
    return Conditions(tuple(names), tuple(shares.tolist())), labelled


def _clusters(
    cache: TokenCache, model: Mage | None, tokenizer: Mage | None, count: int, launch: Launch, seed: int
) -> np.ndarray:
    """The cluster of each image of a cache; also written into the launch's folder."""
    if count > len(cache):
        raise ValueError(f"{count} clusters for {len(cache)} images: choose a smaller conditions.clusters")
    if model is not None and isinstance(model.transformer, MAGETransformer):
        if model.tokenizer is not None:
            cache.check_tokenizer(model.tokenizer)
        labels = cluster(token_features(model, cache, device=launch.start()), count, seed=seed)
    elif tokenizer is not None:
        labels = cluster(pixel_features(tokenizer, cache), count, seed=seed, whiten=False)
    else:
        raise ValueError(
            "conditions.source=clusters of tokens that are not images needs --init-from, a MAGE model whose features "
            "are clustered; or set it to none"
        )
    with atomic.replacing(launch.out / CLUSTERS) as temporary, open(temporary, "wb") as file:
        np.save(file, labels)
    return labels


@torch.inference_mode()
def picture(model: Mage, cache: TokenCache, *, rows: int = 16, columns: int = 12) -> Float[Tensor, "c H W"]:
    """A picture of a cache's classes: a row of decoded images for each, largest class first."""
    assert cache.labels is not None
    order = np.random.default_rng(stream_seed(0, "cluster picture")).permutation(
        len(cache)
    )  # files are sorted by label
    shown = []
    for label in range(min(rows, len(cache.class_names))):
        chosen = order[cache.labels[order] == label][:columns]
        if not len(chosen):
            continue
        decoded = model.decode_tokens(cache.tokens(chosen, np.zeros_like(chosen))).float().cpu()
        blank = decoded.new_ones(columns - len(decoded), *decoded.shape[1:])
        shown.append((cache.class_names[label], torch.cat([decoded, blank])))
    return pictures.labelled_rows(shown)


def token_features(
    model: Mage, cache: TokenCache, *, batch_size: int = 256, device: torch.device | None = None
) -> Tensor:
    """Mean-pooled features (n, d) of the first view of every image in a cache, of length 1 each."""
    device = device or model.device
    network = model.require_transformer()
    if device != model.device:
        network = copy.deepcopy(network).to(device)
    features = []
    for first in range(0, len(cache), batch_size):
        chosen = np.arange(first, min(first + batch_size, len(cache)))
        tokens = cache.tokens(chosen, np.zeros_like(chosen)).to(device)
        with evaluating(network), autocast(model.precision if device == model.device else "auto", device):
            features.append(functional.normalize(network.features(tokens, "mean").float(), dim=1).cpu())
    return torch.cat(features)


@torch.inference_mode()
def pixel_features(tokenizer: Mage, cache: TokenCache) -> Tensor:
    """Pixels (n, d) of the first view of every image in a cache, as its tokens restore it, reduced to SIDE x SIDE.

    What is clustered before there is a model with features: groups of alike layout and colour.
    """
    pixels = []
    for first in range(0, len(cache), 256):
        chosen = np.arange(first, min(first + 256, len(cache)))
        restored = tokenizer.decode_tokens(cache.tokens(chosen, np.zeros_like(chosen))).float().cpu()
        pixels.append(functional.adaptive_avg_pool2d(restored, SIDE).flatten(1))
    return torch.cat(pixels)


def whitened(features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
    """Whitened principal components with a SHARE of the variance, at most MOST_COMPONENTS; rows have length 1.

    As in Caron et al., "Deep clustering", ECCV 2018. Without whitening, a few directions, such as the thickness of
    strokes, determine the clusters.
    """
    centred = features.double() - features.double().mean(dim=0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))  # the largest are the last
    held = variances.flip(0).cumsum(0) / variances.sum()
    kept = min(int((held < SHARE).sum()) + 1, MOST_COMPONENTS)
    projected = centred @ (directions[:, -kept:] / variances[-kept:].clamp_min(1e-12).sqrt())
    return functional.normalize(projected, dim=1).float()


def cluster(features: Float[Tensor, "n d"], count: int, *, seed: int, whiten: bool = True) -> np.ndarray:
    """Cluster of each row, by k-means on whitened features; clusters are numbered from the largest to the smallest.

    whiten: pixels, in which the large differences are those that one sees, are better clustered as they are.
    """
    features = whitened(features) if whiten else features
    settings = {"n_init": 1, "max_iter": 100, "random_state": stream_seed(seed, "clusters") % 2**32}
    means = KMeans(count, **settings) if len(features) <= MANY else MiniBatchKMeans(count, batch_size=8192, **settings)
    labels = means.fit_predict(features.numpy())
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(count)
    renamed: np.ndarray = rank[labels]
    return renamed
