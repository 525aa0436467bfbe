"""Options of `mage train-tokenizer`."""

from dataclasses import dataclass

from mage.cli.options.base import TimedOptions


@dataclass(frozen=True, kw_only=True)
class Options(TimedOptions):
    """Train a VQGAN."""
