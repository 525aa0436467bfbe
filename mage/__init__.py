"""MAGE: one network that generates images and extracts their features (Li et al., CVPR 2023).

model = mage.load("runs/digits")
images = model.generate(16, seed=0)
features = model.features(images)

Importing the package loads nothing else: each name below is loaded when it is first used.
"""

import importlib
import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mage.building import build as build
    from mage.checkpoints import official as official
    from mage.data.datasets import load_dataset as load_dataset
    from mage.data.own_tokens import write_tokens as write_tokens
    from mage.evaluation.image_classifier import ImageClassifier as ImageClassifier
    from mage.evaluation.image_classifier import load_classifier as load_classifier
    from mage.masking import mask_from_noise as mask_from_noise
    from mage.models import MAGEClassifier as MAGEClassifier
    from mage.models import MAGEConfig as MAGEConfig
    from mage.models import MAGETransformer as MAGETransformer
    from mage.pipeline import Mage as Mage
    from mage.pipeline import load as load
    from mage.sampling.decode import decode as decode
    from mage.sampling.decode import decode_relaxed as decode_relaxed
    from mage.sampling.settings import SamplingConfig as SamplingConfig
    from mage.tokenizers import VQGAN as VQGAN
    from mage.tokenizers import VQGANConfig as VQGANConfig
    from mage.vocabulary import Vocabulary as Vocabulary

__version__ = "0.1.0"

_MODULES = {
    "ImageClassifier": "mage.evaluation.image_classifier",
    "MAGEClassifier": "mage.models",
    "MAGEConfig": "mage.models",
    "MAGETransformer": "mage.models",
    "Mage": "mage.pipeline",
    "SamplingConfig": "mage.sampling.settings",
    "VQGAN": "mage.tokenizers",
    "VQGANConfig": "mage.tokenizers",
    "Vocabulary": "mage.vocabulary",
    "build": "mage.building",
    "decode": "mage.sampling.decode",
    "decode_relaxed": "mage.sampling.decode",
    "load": "mage.pipeline",
    "load_classifier": "mage.evaluation.image_classifier",
    "load_dataset": "mage.data.datasets",
    "mask_from_noise": "mage.masking",
    "official": "mage.checkpoints",
    "write_tokens": "mage.data.own_tokens",
}
_RENAMED = {"MAGE": "MAGETransformer"}
"""Old name -> new name; old names are removed in the release after next."""

__all__ = sorted([*_MODULES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(f"mage.{name} is called mage.{new} now", DeprecationWarning, stacklevel=2)
        return __getattr__(new)
    if name in _MODULES:
        module = importlib.import_module(_MODULES[name])
        value = getattr(module, name) if hasattr(module, name) else importlib.import_module(f"{_MODULES[name]}.{name}")
        globals()[name] = value
        return value
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
