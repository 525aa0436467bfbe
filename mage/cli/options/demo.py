"""Options of `mage demo`."""

from dataclasses import dataclass
from pathlib import Path

from mage.cli.options.base import RunOptions
from mage.cli.options.bounds import Samples


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Train a tokenizer, cache tokens, pre-train MAGE, generate, reconstruct, edit, probe, and write a report."""

    out: Path = Path("runs/demo")
    """run folder; an interrupted demo continues where it stopped"""
    samples: Samples = 500
    """number of samples that are evaluated"""
    record: Path | None = None
    """also write the results to this JSON file"""
