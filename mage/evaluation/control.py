"""A model's control values: two numbers that its weights alone determine, computed anew wherever it is installed.

They are measured on 64 digits that come with the extra `demo`, whatever the model was trained on, so that they need no
data set. They say nothing about how good a model is; they say whether it is the one that a record describes.
"""

import torch

from mage import images
from mage.data.datasets import load_dataset
from mage.pipeline import Mage

IMAGES = 64


def control(model: Mage) -> dict[str, float]:
    """PSNR (dB) of the tokenizer and mean surprise (nats) of MAGE on the digits.

    Raises ValueError without the extra `demo`.
    """
    digits = load_dataset("mnist5k", split="test", channels=model.channels)
    shown = [images.fit(digits.load(index), model.image_size) for index in range(IMAGES)]
    pixels = images.to_float(torch.stack(shown)).to(model.device)
    tokens = model.encode(pixels)
    return {
        "control_psnr_db": float(images.psnr(model.decode_tokens(tokens).float(), pixels).mean()),
        "control_surprise": float(model.surprise_of_tokens(tokens).mean()),
    }
