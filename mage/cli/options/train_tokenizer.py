"""Options of `mage train-tokenizer`."""

from dataclasses import dataclass

from mage.cli.options.base import TrainOptions


@dataclass(frozen=True, kw_only=True)
class Options(TrainOptions):
    """Train a VQGAN."""
