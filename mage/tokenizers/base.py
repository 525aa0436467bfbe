"""The interface of a tokenizer.

Letters: n images, c channels, H W pixels, h w tokens.
"""

import hashlib
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Tokenizer(Protocol):
    """Anything that turns images in [0, 1] into a grid of ids and back."""

    @property
    def channels(self) -> int:
        """Channels of an image."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the token grid."""

    @property
    def num_codes(self) -> int:
        """Ids are 0 to num_codes - 1."""

    def encode(self, images: Float[Tensor, "n c H W"]) -> Int[Tensor, "n h w"]:
        """Images in [0, 1] -> ids."""

    def decode(self, ids: Int[Tensor, "n h w"]) -> Float[Tensor, "n c H W"]:
        """Ids -> images in [0, 1]."""

    def fingerprint(self) -> str:
        """A short string that changes when any weight changes: caches are keyed by it."""


def check_images(images: Tensor, expected: tuple[int, ...], *, reader: str = "tokenizer") -> None:
    """Raise ValueError unless `images` are floats of shape (n, *expected); reader: named in the message."""
    if images.ndim != 4 or tuple(images.shape[1:]) != expected:
        shape = tuple(images.shape)
        raise ValueError(f"images have shape {shape}; this {reader} takes (N, {', '.join(map(str, expected))})")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; give floats in [0, 1] (mage.images.to_float converts uint8)")


def weights_fingerprint(tensors: Mapping[str, Tensor], rule: str = "") -> str:
    """SHA-256 of names, shapes and bytes, cut to 16 hexadecimal digits. rule: what is done with them, if they alone do
    not say it."""
    digest = hashlib.sha256(rule.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
