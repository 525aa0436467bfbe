"""Options of `mage train-tokenizer`."""

from dataclasses import dataclass

from mage.cli.options.base import TimedOptions
from mage.cli.options.places import Model


@dataclass(frozen=True, kw_only=True)
class Options(TimedOptions):
    """Train a VQGAN, or the decoder of a trained model on tokens that the model draws."""

    decoder_of: Model | None = None
    """train the decoder of this model, and nothing else of it, on tokens of which the model redraws up to half (or
    tokenizer_loss.redrawn), so that it makes good images of them; by the model's own recipe. OUT is the whole model"""
