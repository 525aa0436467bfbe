"""Options of `mage adapt`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from mage.cli.options.base import Common, Repeated
from mage.cli.options.bounds import Minutes, Seed, Workers
from mage.cli.options.choices import Tuning
from mage.cli.options.places import Images, Model, NewFolder


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Continue a model's training on a folder of images: a run in OUT, with adapt.json and report.html.

    A stopped command goes on when it is given again. The model itself is not changed.
    """

    folder: Annotated[Images, tyro.conf.Positional]
    """folder of images of any size, read with its subfolders, which are classes; or a data set by name ({DATASETS})"""
    from_: Annotated[Model, tyro.conf.arg(name="from")]
    """model to start from: name of a packaged one, model or run folder"""
    minutes: Minutes = 20
    """time for training on this machine; encoding the images and measuring, before and after, take some more"""
    out: NewFolder
    """run folder of the new model"""
    tokenizer: Tuning = "auto"
    """keep it; tune its decoder, in a quarter of the minutes; auto: tune it if it loses too much of these images"""
    set: Repeated = ()
    """change one setting of the model's recipe, such as --set data.transform.augmentation=flip; may be repeated"""
    seed: Seed | None = None
    """seed of everything random; default: the model's recipe's"""
    data_root: str | None = None
    """folder with the files of a named data set"""
    workers: Workers = 0
    """processes that read and augment images; 0: the main one"""
