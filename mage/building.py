"""Build a model with random weights from its sizes, for benchmarks, tests and teaching."""

import torch

from mage import rng
from mage.models import MAGEConfig, MAGETransformer
from mage.models.presets import preset
from mage.pipeline import Mage
from mage.tokenizers import VQGAN, QuantizerConfig, VQGANConfig
from mage.vocabulary import Vocabulary


def build(
    size: str | MAGEConfig = "base",
    *,
    image_size: int | tuple[int, int] = 256,
    channels: int = 3,
    tokenizer: VQGANConfig | None = None,
    seed: int = 0,
    precision: str = "auto",
    device: str = "auto",
) -> Mage:
    """A model with random weights: a preset ("tiny" ... "huge") on the paper's tokenizer, or on `tokenizer`."""
    pixels = (image_size, image_size) if isinstance(image_size, int) else image_size
    config = tokenizer or VQGANConfig(image_size=pixels, channels=channels, quantizer=QuantizerConfig())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.stream_seed(seed, "build"))
        vqgan = VQGAN(config)
        sizes = preset(size) if isinstance(size, str) else size
        transformer = MAGETransformer(sizes, Vocabulary.fresh(config.quantizer.num_codes), config.grid)
    return Mage(vqgan.eval(), transformer.eval(), precision=precision, device=device)
