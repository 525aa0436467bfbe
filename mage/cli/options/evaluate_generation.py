"""Options of `mage evaluate generation`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mage.cli.options.base import SamplerOptions
from mage.cli.options.bounds import BatchSize, Several
from mage.cli.options.places import Images, NewFolder


@dataclass(frozen=True, kw_only=True)
class Options(SamplerOptions):
    """Measure generated images against real ones: OUT/generation.json. Names have extractor, reference and number."""

    samples: Path
    """folder of images, of tar shards or of features, by `mage generate`; or a model or run, which then generates"""
    num: Several = 10_000
    """images to generate, of a model"""
    data: Images | None = None
    """data set of real images by name, or a folder; default: what the model was trained on"""
    data_root: str | None = None
    """folder with the files of a named data set"""
    split: Literal["train", "test", "all"] = "test"
    """part of the data set that is the reference; as many images of the other part give the value of real images. With
    --reference: the part that its statistics are of, such as train for ADM's of ImageNet"""
    reference: Path | None = None
    """.npz of statistics instead: by --save-reference, or mu and sigma in the layout of ADM and pytorch-fid"""
    save_reference: Path | None = None
    """write the reference's statistics to this .npz"""
    extractor: str = "efflite0"
    """efflite0, inception, timm:NAME or fidelity:NAME"""
    extractor_weights: str = ""
    """file of the extractor's weights, if it is not in the default place"""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """scaling of real images to the samples' size, before a centre crop"""
    rounding: Literal["nearest", "truncate"] = "nearest"
    """conversion of a model's images to 8 bits; truncate: as in the published FID"""
    real: bool = True
    """leave out the metrics of as many real images of the other part"""
    out: NewFolder | None = None
    """folder for the numbers as JSON"""
    batch_size: BatchSize = 64
    """images at a time"""
