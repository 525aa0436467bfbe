"""Options of `mage pretrain`."""

from dataclasses import dataclass
from pathlib import Path

from mage.cli.options.base import TimedOptions
from mage.cli.options.places import Model


@dataclass(frozen=True, kw_only=True)
class Options(TimedOptions):
    """Pre-train MAGE. --data may also be a token cache; otherwise one is made in OUT/tokens, unless --online."""

    tokenizer: Model | None = None
    """folder of a tokenizer or of a whole model; none for methods that read pixels, and for a cache made by `mage
    tokenize --array`"""
    online: bool = False
    """encode images on the fly instead of reading a cache"""
    validation: Path | None = None
    """token cache for the validation loss, if there is no tokenizer"""
    init_from: Model | None = None
    """model to start from instead of random weights, as far as it fits: domain adaptation"""
