"""Options of `mage reproduce`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mage.cli.options.base import Common
from mage.cli.options.bounds import BatchSize, Count, Seed, Steps, Workers
from mage.cli.options.choices import Part
from mage.cli.options.places import Images, NewFolder


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Convert, generate 50,000 images, FID and IS, linear probe, few-shot: OUT/table.md, with the published values.

    A stopped command can be run again. Fine-tuning is not a default part: --parts finetune.
    """

    what: Annotated[Literal["imagenet"], tyro.conf.Positional] = "imagenet"
    """the paper's numbers on ImageNet-1K at 256 x 256"""
    checkpoint: Path
    """released MAGE (.pth), or a model folder"""
    tokenizer: Path | None = None
    """released tokenizer, if the checkpoint does not contain it"""
    config: Path | None = None
    """JSON with sizes that the tensors do not show, as for `mage convert`"""
    data: Images
    """folder in ImageNet's layout: train/CLASS/ and val/CLASS/"""
    out: NewFolder
    """folder for the converted model, features, numbers and the table"""
    parts: tuple[Part, ...] = ("generation", "linear", "fewshot")
    """generation, linear, fewshot, finetune"""
    num: Count = 50_000
    """generated images"""
    steps: Steps = 20
    """network passes per image"""
    choice_temperature: float | None = None
    """default: the published one, 6 for ViT-B and 11 for ViT-L"""
    epochs: Count = 90
    """epochs of the linear probe"""
    crops: Literal["random", "fixed"] = "random"
    """of the linear probe. random: as published, a pass over ImageNet per epoch; fixed: one pass, with its own name"""
    extractor: str = "inception"
    """of the generated images; only inception gives FID, other extractors give metrics of other names"""
    extractor_weights: str = ""
    """file of the extractor's weights, if they are not found automatically"""
    batch_size: BatchSize = 64
    """images at a time"""
    workers: Workers = 0
    """processes that read images; for the full ImageNet, use the number of cores"""
    seed: Seed = 0
    """seed of everything random"""
