"""The table of sizes. base, large and huge are the published ones; tiny and small follow the usual ViT series."""

from mage.models.mage import MAGEConfig

PRESETS: dict[str, MAGEConfig] = {
    "tiny": MAGEConfig(192, 12, 3, decoder_width=192, decoder_depth=4, decoder_heads=3),
    "small": MAGEConfig(384, 12, 6, decoder_width=384, decoder_depth=8, decoder_heads=6),
    "base": MAGEConfig(768, 12, 12, decoder_width=768, decoder_depth=8, decoder_heads=16),
    "large": MAGEConfig(1024, 24, 16, decoder_width=1024, decoder_depth=8, decoder_heads=16),
    "huge": MAGEConfig(1280, 32, 16, decoder_width=1280, decoder_depth=8, decoder_heads=16),
}


def preset(name: str) -> MAGEConfig:
    """The configuration named `name`. Raises ValueError, listing the names, if there is none."""
    if name not in PRESETS:
        raise ValueError(f"there is no size {name!r}; sizes are {', '.join(PRESETS)}")
    return PRESETS[name]
