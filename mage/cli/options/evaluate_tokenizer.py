"""Options of `mage evaluate tokenizer`."""

from dataclasses import dataclass
from typing import Literal

from mage.cli.options.base import Common
from mage.cli.options.bounds import BatchSize, Several
from mage.cli.options.places import Images, Model, NewFolder


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Measure a tokenizer on a data set's test images: OUT/evaluation.json and OUT/side_by_side.png."""

    tokenizer: Model
    """folder of a tokenizer or of a whole model"""
    data: Images | None = None
    """data set by name, or a folder of images; default: what the tokenizer was trained on"""
    data_root: str | None = None
    """folder with the files of a named data set"""
    split: Literal["train", "test"] = "test"
    """part of the data set"""
    num: Several = 10_000
    """largest number of images"""
    out: NewFolder | None = None
    """folder for the numbers as JSON and the picture"""
    perceptual: str = "efflite0"
    """perceptual distance: efflite0, lpips-vgg, timm:NAME or none"""
    perceptual_weights: str = ""
    """file or folder of the perceptual network's weights"""
    extractor: str = "efflite0"
    """network of the Frechet distance: efflite0, inception (rFID), timm:NAME or fidelity:NAME"""
    extractor_weights: str = ""
    """file of the extractor's weights, if it is not in the default place"""
    judge: bool = False
    """also train a small classifier on the labelled training images, for a Frechet distance of its features"""
    histogram_probe: bool = False
    """also train a linear classifier on counts of the tokens of the training images"""
    batch_size: BatchSize = 128
    """images at a time"""
