"""What a model does, as networks with named inputs and one named output, each of which becomes a file.

encode     images -> tokens
decode     tokens -> images
features   tokens, or images for encoders on pixels -> one vector per image
logits     tokens of which some are unknown, and classes -> scores of all codes at all positions: one decoding pass
classes    tokens, or images -> class scores, for classifiers

Letters: n images, c channels, H W pixels, l tokens, d feature width, k codes or classes.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from mage import rng
from mage.models import Classifier, MAGEClassifier, MAGETransformer, PatchEncoder
from mage.models.pooling import Pool, check_pool, feature_width
from mage.nn.blocks import choose_attention
from mage.nn.grids import area
from mage.pipeline import Mage
from mage.sampling.classes import NO_CLASS
from mage.sampling.decode import UNKNOWN
from mage.sampling.generator import scores_everywhere
from mage.tokenizers import VQGAN, LDMTokenizer

PartName = Literal["encode", "decode", "features", "logits", "classes"]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Port:
    """An input or output; its first dimension is the number of images, which is open."""

    name: str
    shape: tuple[int, ...]
    """Without the number of images."""
    meaning: str
    limits: tuple[int, int] | None = None
    """Smallest and largest id; None for floats."""

    def example(self, count: int, seed: int) -> Tensor:
        """Random values: ids within the limits, or floats in [0, 1)."""
        generator = rng.generator(seed, "export", self.name)
        if self.limits is None:
            return torch.rand(count, *self.shape, generator=generator)
        return torch.randint(self.limits[0], self.limits[1] + 1, (count, *self.shape), generator=generator)


@dataclass(frozen=True)
class Part:
    """One network that is written into one file; in float32, on the CPU, in evaluation mode."""

    name: PartName
    network: nn.Module
    inputs: tuple[Port, ...]
    output: Port


class Encode(nn.Module):
    """Images in [0, 1] -> ids."""

    def __init__(self, tokenizer: VQGAN | LDMTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, H, W) -> (n, h, w)."""
        ids: Tensor = self.tokenizer.encode(images)
        return ids


class Decode(nn.Module):
    """Ids -> images in [0, 1]."""

    def __init__(self, tokenizer: VQGAN | LDMTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, h, w) -> (n, c, H, W)."""
        images: Tensor = self.tokenizer.decode(tokens)
        return images


class Features(nn.Module):
    """The transformer's input -> one vector per image."""

    def __init__(self, network: Any, pool: Pool) -> None:
        super().__init__()
        self.network, self.pool = network, pool

    def forward(self, inputs: Tensor) -> Tensor:
        """Token grids or images -> (n, d)."""
        vectors: Tensor = self.network.features(inputs, self.pool)
        return vectors


class Logits(nn.Module):
    """One decoding pass: partly unknown tokens -> scores of all codes at all positions."""

    def __init__(self, network: MAGETransformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor, classes: Tensor | None = None) -> Tensor:
        """Token grids (n, *grid), -1 = unknown, and classes (n,), -1 = none -> (n, l, k)."""
        wanted = tokens.new_full((tokens.shape[0],), NO_CLASS) if classes is None else classes
        return scores_everywhere(self.network, self.network.check_ids(tokens), wanted)


def parts_of(model: Mage, wanted: Sequence[str] = (), pool: Pool = "mean") -> tuple[Part, ...]:
    """The parts that a model has, or those of them that are `wanted`.

    pool: of the features; a classifier has its own. Raises ValueError for parts that this model does not have, and for
    a tokenizer that is the user's own.
    """
    for name in wanted:
        if name not in get_args(PartName):
            raise ValueError(f"there is no part {name!r} to export; parts are {', '.join(get_args(PartName))}")
    tokenizer, parts = model.tokenizer, list[Part]()
    if isinstance(tokenizer, VQGAN | LDMTokenizer):
        parts += _of_tokenizer(tokenizer)
    elif tokenizer is not None and (not wanted or {"encode", "decode"} & set(wanted)):
        raise ValueError(
            f"the tokenizer of this model is a {type(tokenizer).__name__} of your own, which cannot be exported; give "
            "the parts of the transformer, such as features and logits, and make their tokens with your own code"
        )
    if model.transformer is not None:
        parts += _of_transformer(model, pool)
    there = [part.name for part in parts]
    for name in wanted:
        if name not in there:
            raise ValueError(f"this model has no part {name!r}; it has {', '.join(there)}")
    return tuple(part for part in parts if not wanted or part.name in wanted)


def _of_tokenizer(tokenizer: VQGAN | LDMTokenizer) -> list[Part]:
    plain = _plain(tokenizer)
    tokens = Port("tokens", tuple(tokenizer.grid), "ids of codes", (0, tokenizer.num_codes - 1))
    images = _images_port(tokenizer.channels, tokenizer.image_size)
    return [
        Part("encode", Encode(plain).eval(), (images,), tokens),
        Part("decode", Decode(plain).eval(), (tokens,), images),
    ]


def _of_transformer(model: Mage, pool: Pool) -> list[Part]:
    network = _plain(model.require_transformer())
    if isinstance(network, MAGETransformer | MAGEClassifier):
        codes = network.vocabulary.num_codes
        inputs = Port("tokens", tuple(network.grid), "ids of codes", (0, codes - 1))
    else:
        inputs = _images_port(network.config.channels, network.config.image_size)
    width = network.config.width
    if isinstance(network, Classifier):
        scores = Port("scores", (network.num_classes,), "class scores, before the softmax")
        vectors = Port("features", (width,), f"what the classifier reads; pool {network.pool}")
        return [
            Part("features", Features(network, network.pool).eval(), (inputs,), vectors),
            Part("classes", network, (inputs,), scores),
        ]
    check_pool(pool, len(network.encoder.blocks if isinstance(network, MAGETransformer) else network.blocks))
    vectors = Port("features", (feature_width(width, pool),), f"one vector per image; pool {pool}")
    parts = [Part("features", Features(network, pool).eval(), (inputs,), vectors)]
    if isinstance(network, PatchEncoder):
        return parts
    unknown = Port("tokens", tuple(network.grid), f"ids of codes, {UNKNOWN} = unknown", (UNKNOWN, codes - 1))
    given = [unknown]
    if count := network.config.num_classes:
        given.append(Port("classes", (), f"number of the class, {NO_CLASS} = none", (NO_CLASS, count - 1)))
    scores = Port("logits", (area(network.grid), codes), "scores of all codes at all positions, row by row")
    return [*parts, Part("logits", Logits(network).eval(), tuple(given), scores)]


def _images_port(channels: int, size: tuple[int, int]) -> Port:
    return Port("images", (channels, *size), "floats in [0, 1], channels first")


def _plain(network: Network) -> Network:
    """A copy in float32 on the CPU without gradients, whatever the model runs in; attention as plain products."""
    copied = copy.deepcopy(network).to("cpu", torch.float32).eval().requires_grad_(False)
    choose_attention(copied, torch.device("cpu"))
    return copied
