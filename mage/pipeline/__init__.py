"""The model class `Mage` and `load`: a tokenizer and a transformer for generation, editing and features."""

from mage.pipeline.model import Mage as Mage
from mage.pipeline.model import load as load
