"""The built-in methods: importing this file registers them."""

from mage.training.contrastive import MAGECMethod as MAGECMethod
from mage.training.ijepa import IJEPAMethod as IJEPAMethod
from mage.training.method import METHODS as METHODS
from mage.training.method import MethodConfig as MethodConfig
from mage.training.method import MethodInputs as MethodInputs
from mage.training.pixels import MAEMethod as MAEMethod
from mage.training.pixels import SimCLRMethod as SimCLRMethod
from mage.training.pretrain import MAGEMethod as MAGEMethod
from mage.training.pretrain import MaskGITMethod as MaskGITMethod
