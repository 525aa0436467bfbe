"""Quantizers map a continuous vector to one of a fixed number of codes. `QuantizerConfig.kind` selects one."""

from mage.tokenizers.quantizers.base import QUANTIZERS as QUANTIZERS
from mage.tokenizers.quantizers.base import CodebookUsage as CodebookUsage
from mage.tokenizers.quantizers.base import Quantized as Quantized
from mage.tokenizers.quantizers.base import Quantizer as Quantizer
from mage.tokenizers.quantizers.base import QuantizerConfig as QuantizerConfig
from mage.tokenizers.quantizers.base import codebook_usage as codebook_usage
from mage.tokenizers.quantizers.implicit import FSQ as FSQ
from mage.tokenizers.quantizers.implicit import LFQ as LFQ
from mage.tokenizers.quantizers.learned import RunningMeanQuantizer as RunningMeanQuantizer
from mage.tokenizers.quantizers.learned import SimVQ as SimVQ
from mage.tokenizers.quantizers.learned import VectorQuantizer as VectorQuantizer

QUANTIZERS.add("vq", VectorQuantizer)
QUANTIZERS.add("ema", RunningMeanQuantizer)
QUANTIZERS.add("normalized", RunningMeanQuantizer)
QUANTIZERS.add("simvq", SimVQ)
QUANTIZERS.add("fsq", FSQ)
QUANTIZERS.add("lfq", LFQ)


def build_quantizer(config: QuantizerConfig, width: int) -> Quantizer:
    """The quantizer that `config.kind` names, for vectors of `width`. Raises ValueError if sizes do not agree."""
    return QUANTIZERS.get(config.kind)(config, width)
