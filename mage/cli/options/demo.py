"""Options of `mage demo`."""

from dataclasses import dataclass
from pathlib import Path

from mage.cli.options.base import RunOptions
from mage.cli.options.bounds import MinutesOrNone, Samples
from mage.cli.options.places import NewFolder, NewJson


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Show the model that comes with the package, then train one from nothing: tokenizer, tokens, MAGE; generate,
    reconstruct, edit, probe, and write a report with both."""

    out: NewFolder = Path("runs/demo")
    """run folder; an interrupted demo continues where it stopped"""
    minutes: MinutesOrNone | None = None
    """time for everything; sizes and steps of the training are fitted to what is left of it; 0: no training. Default:
    5, or as many as the recipe's steps take if there is a --recipe, --config or --set"""
    samples: Samples = 300
    """number of samples that are evaluated"""
    record: NewJson | None = None
    """also write the results to this JSON file"""
