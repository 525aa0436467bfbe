"""Networks: MAGE, its classifier form, and the table of sizes."""

from mage.models.classifier import MAGEClassifier as MAGEClassifier
from mage.models.mage import MAGE as MAGE
from mage.models.mage import MAGEConfig as MAGEConfig
from mage.models.presets import PRESETS as PRESETS
