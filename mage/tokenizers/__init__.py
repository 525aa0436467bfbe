"""Tokenizers: images <-> grids of integers."""

from mage.tokenizers.base import Tokenizer as Tokenizer
from mage.tokenizers.ldm import LDMConfig as LDMConfig
from mage.tokenizers.ldm import LDMTokenizer as LDMTokenizer
from mage.tokenizers.quantizers import QuantizerConfig as QuantizerConfig
from mage.tokenizers.vqgan import VQGAN as VQGAN
from mage.tokenizers.vqgan import VQGANConfig as VQGANConfig
