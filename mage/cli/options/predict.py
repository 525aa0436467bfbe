"""Options of `mage predict`."""

from dataclasses import dataclass
from pathlib import Path

from mage.cli.options.embed import FolderOptions


@dataclass(frozen=True, kw_only=True)
class Options(FolderOptions):
    """Write the class of every image of a folder, its score and the next class.

    A stopped command goes on when it is run again; images that already have a row, by name, size and time of the file,
    are left out.
    """

    model: Path
    """classifier of `mage probe --out`, or run of `mage finetune`"""
    out: Path
    """table: .csv, .parquet (needs pyarrow) or .npz"""
