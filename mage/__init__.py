"""MAGE: one network that generates images and describes them (Li et al., CVPR 2023).

model = mage.load("runs/digits")
images = model.generate(16, seed=0)
features = model.features(images)
"""

from mage import masking as masking
from mage.building import build as build
from mage.checkpoints import official as official
from mage.masking import mask_from_noise as mask_from_noise
from mage.models import MAGE as MAGE
from mage.models import MAGEClassifier as MAGEClassifier
from mage.models import MAGEConfig as MAGEConfig
from mage.pipeline import Mage as Mage
from mage.pipeline import load as load
from mage.sampling.decode import decode as decode
from mage.sampling.decode import decode_relaxed as decode_relaxed
from mage.tokenizers import VQGAN as VQGAN
from mage.tokenizers import VQGANConfig as VQGANConfig
from mage.vocabulary import Vocabulary as Vocabulary

__version__ = "0.1.0"
