"""Options of `mage tune-sampler`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mage.cli.options.base import SamplerOptions
from mage.cli.options.bounds import BatchSize, Several, Steps


@dataclass(frozen=True, kw_only=True)
class Options(SamplerOptions):
    """Try samplers on a model and store the best with it. Options of the sampler that are given stay fixed."""

    model: Path
    """model or run folder; its settings are changed"""
    data: str | None = None
    """data set of real images; default: what the model was trained on"""
    data_root: str | None = None
    """folder where a named data set's files are"""
    split: Literal["validation", "train", "test", "all"] = "validation"
    """part of the data set that samples are compared with; validation: the training images that training held out"""
    metric: str = "frechet"
    """what is made best: frechet, kernel, is, precision, recall, density, coverage, or a metric of your own"""
    extractor: str = "efflite0"
    """efflite0, inception, timm:NAME or fidelity:NAME"""
    extractor_weights: str = ""
    """file of the extractor's weights, where it is not found by itself"""
    num: Several = 1000
    """images per candidate"""
    try_orders: tuple[str, ...] = ("confidence", "halton")
    """orders to try"""
    try_steps: tuple[Steps, ...] = (8, 12, 20)
    """numbers of steps to try; of two that are about as good, the smaller is stored"""
    try_guidances: tuple[float, ...] = ()
    """weights of the guidance to try, of a model with classes; searched in turn with the temperature"""
    store: bool = True
    """leave the model as it is, instead of storing the best settings in it"""
    out: Path | None = None
    """JSON file for all that was tried"""
    batch_size: BatchSize = 250
    """images at a time"""
