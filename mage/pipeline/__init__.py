"""The object a user meets: a tokenizer and a transformer that generate, edit, reconstruct and describe images."""

from mage.pipeline.model import Mage as Mage
from mage.pipeline.model import load as load
