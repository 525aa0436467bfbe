"""What a model is made of. Training writes parts, `mage.load` reads them; the pipeline knows what to do with them."""

from dataclasses import dataclass, field
from typing import Any

from mage.models import Transformer
from mage.tokenizers import Tokenizer


@dataclass(frozen=True)
class ModelParts:
    """Networks, the recipe that made them, and what training noted for later. Either network may be missing."""

    tokenizer: Tokenizer | None = None
    transformer: Transformer | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    """The recipe as plain values; of a converted model, where it came from."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Such as names of classes, or how well the tokenizer did on held-out images."""
