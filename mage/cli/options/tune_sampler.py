"""Options of `mage tune-sampler`."""

from dataclasses import dataclass
from typing import Literal

from mage.cli.options.base import SamplerOptions
from mage.cli.options.bounds import BatchSize, Count, Several, Steps
from mage.cli.options.places import Images, Model, New


@dataclass(frozen=True, kw_only=True)
class Options(SamplerOptions):
    """Try samplers on a model and store the best with it. Options of the sampler that are given are fixed."""

    model: Model
    """model or run folder; its settings are changed"""
    data: Images | None = None
    """data set of real images; default: what the model was trained on"""
    data_root: str | None = None
    """folder with the files of a named data set"""
    split: Literal["validation", "train", "test", "all"] = "validation"
    """part of the data set that samples are compared with; validation: training images held out by the training"""
    metric: str = "frechet"
    """metric to optimise: frechet, kernel, is, precision, recall, density, coverage, authenticity, or a registered
    metric"""
    extractor: str = "efflite0"
    """efflite0, inception, timm:NAME or fidelity:NAME"""
    extractor_weights: str = ""
    """file of the extractor's weights, if they are not found automatically"""
    num: Several = 1000
    """images per candidate"""
    try_orders: tuple[str, ...] = ("confidence", "halton")
    """orders to try"""
    try_steps: tuple[Steps, ...] = (8, 12, 20)
    """numbers of steps to try; among about equally good ones the smallest is stored"""
    try_guidances: tuple[float, ...] = ()
    """weights of the guidance to try, of a model with classes; searched in turn with the temperature"""
    try_encoder_keep: tuple[float, ...] = (0.25, 0.5)
    """shares of the tokens for the encoder to try; the smallest that is about as good is stored"""
    try_reuse: tuple[Count, ...] = (2, 4, 8)
    """how many passes to let share what one of them computed; the largest number that is about as good is stored"""
    store: bool = True
    """do not store the best settings in the model"""
    out: New | None = None
    """JSON file for all trials"""
    batch_size: BatchSize = 250
    """images at a time"""
