"""Networks: MAGE, the pixel encoder of the baselines, the classifiers on top of both, and the table of sizes."""

import warnings
from typing import Any

from mage.models.classifier import Classifier as Classifier
from mage.models.classifier import MAGEClassifier as MAGEClassifier
from mage.models.classifier import PatchClassifier as PatchClassifier
from mage.models.mage import MAGEConfig as MAGEConfig
from mage.models.mage import MAGETransformer as MAGETransformer
from mage.models.pixels import PatchEncoder as PatchEncoder
from mage.models.pixels import PatchEncoderConfig as PatchEncoderConfig
from mage.models.presets import PRESETS as PRESETS

Transformer = MAGETransformer | MAGEClassifier | PatchEncoder | PatchClassifier
"""The networks that a model folder may hold. The last two take images, the others tokens."""


def __getattr__(name: str) -> Any:
    if name == "MAGE":  # its name until 0.1
        warnings.warn("mage.models.MAGE is called MAGETransformer now", DeprecationWarning, stacklevel=2)
        return MAGETransformer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
