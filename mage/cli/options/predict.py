"""Options of `mage predict`."""

from dataclasses import dataclass

from mage.cli.options.embed import FolderOptions
from mage.cli.options.places import Classifier, NewTable


@dataclass(frozen=True, kw_only=True)
class Options(FolderOptions):
    """Write the class of every image of a folder, its score and the next class.

    A stopped command goes on when it is run again; images that already have a row, by name, size and time of the file,
    are left out.
    """

    model: Classifier
    """classifier of `mage probe --out`, or run of `mage finetune`"""
    out: NewTable
    """table: .csv, .parquet (needs pyarrow) or .npz"""
