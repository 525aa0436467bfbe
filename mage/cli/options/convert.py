"""Options of `mage convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mage.cli.options.base import Printing
from mage.cli.options.bounds import Side
from mage.cli.options.places import New


@dataclass(frozen=True, kw_only=True)
class Options(Printing):
    """Read released files (.pth) into a model folder; or write a converted folder back as .pth."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """released file(s): MAGE, tokenizer, both, linear probe or fine-tuned; a tokenizer trained elsewhere: a taming or
    latent-diffusion VQGAN file, a diffusers VQModel folder; or one folder made by `mage convert`, to convert it back"""
    out: New
    """model folder to write; or a .pth file when a converted folder is converted back"""
    config: Path | None = None
    """JSON with sizes that the tensors do not show, such as num_heads"""
    image_size: tuple[Side, Side] | None = None
    """height and width, where the tensors do not show them; default: a folder's own, else 256 256"""
    to_hub_layout: bool = False
    """write a card (README.md) and the weights' hashes, too: the folder can be uploaded as it is"""
    allow_extra: bool = False
    """keep unknown tensors instead of refusing the file"""
