"""Networks: MAGE, the pixel encoder of its rivals, their classifier forms, and the table of sizes."""

from mage.models.classifier import Classifier as Classifier
from mage.models.classifier import MAGEClassifier as MAGEClassifier
from mage.models.classifier import PatchClassifier as PatchClassifier
from mage.models.mage import MAGE as MAGE
from mage.models.mage import MAGEConfig as MAGEConfig
from mage.models.pixels import PatchEncoder as PatchEncoder
from mage.models.pixels import PatchEncoderConfig as PatchEncoderConfig
from mage.models.presets import PRESETS as PRESETS

Transformer = MAGE | MAGEClassifier | PatchEncoder | PatchClassifier
"""What a model folder may hold beside its tokenizer. The last two take images, the others tokens."""
