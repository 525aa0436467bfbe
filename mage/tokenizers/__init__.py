"""Tokenizers: images <-> grids of integers."""

from mage.tokenizers.base import Tokenizer as Tokenizer
from mage.tokenizers.quantizers import QuantizerConfig as QuantizerConfig
from mage.tokenizers.vqgan import VQGAN as VQGAN
from mage.tokenizers.vqgan import VQGANConfig as VQGANConfig
