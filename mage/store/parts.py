"""The parts of a model: training writes them, `mage.load` reads them, the pipeline uses them."""

from dataclasses import dataclass, field
from typing import Any

from mage.models import Transformer
from mage.tokenizers import Tokenizer


@dataclass(frozen=True)
class ModelParts:
    """Networks, the recipe they were trained with, and notes of the training. Either network may be missing."""

    tokenizer: Tokenizer | None = None
    transformer: Transformer | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    """The recipe as plain values; for a converted model, its origin."""
    notes: dict[str, Any] = field(default_factory=dict)
    """For example class names, or the tokenizer's metrics on held-out images."""
