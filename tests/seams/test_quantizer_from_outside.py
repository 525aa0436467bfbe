"""A stranger's quantizer trains in a VQGAN, is saved, loaded, and part of the tokenizer's fingerprint."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import mage
from mage import runs
from mage.recipes import named
from mage.settings import override
from mage.tokenizers import VQGAN
from mage.tokenizers.quantizers import QUANTIZERS, Quantized, Quantizer, QuantizerConfig, VectorQuantizer
from mage.tokenizers.quantizers.base import straight_through
from tests.reference.launches import quiet


class Cosine(Quantizer):
    """Words by the largest cosine; its tensor is called as no other's."""

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__(config)
        self.palette = nn.Parameter(torch.randn(config.num_codes, width))

    def words(self) -> Tensor:
        return functional.normalize(self.palette, dim=1)

    def affinity(self, vectors: Tensor) -> Tensor:
        return functional.normalize(vectors, dim=1) @ self.words().T

    def forward(self, latent: Tensor) -> Quantized:
        ids = self.ids(latent)
        words = self.lookup(ids)
        return Quantized(straight_through(latent, words), ids, functional.mse_loss(words, latent))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    QUANTIZERS.add("cosine", Cosine)
    yield
    QUANTIZERS.remove("cosine")


def test_a_strangers_quantizer_is_trained_saved_and_fingerprinted(tmp_path: Path) -> None:
    recipe = override(named("smoke"), ["tokenizer.quantizer.kind=cosine"])
    runs.train_tokenizer(recipe, quiet(tmp_path / "run"))
    tokenizer = mage.load(tmp_path / "run", precision="float32").tokenizer
    assert isinstance(tokenizer.quantizer, Cosine)
    before = tokenizer.fingerprint()
    with torch.no_grad():
        tokenizer.quantizer.palette[0] += 1
    assert tokenizer.fingerprint() != before, "a cache made by the old words must not pass"
    QUANTIZERS.remove("cosine")
    with pytest.raises(ValueError, match="there is no quantizer 'cosine'"):
        mage.load(tmp_path / "run")


@pytest.mark.parametrize("name", ["palette", "sums", "turn"])
def test_every_tensor_of_a_strangers_quantizer_counts(name: str) -> None:
    class Turned(Cosine):
        """Saved words, a saved buffer called as a built-in one that decides nothing, and a buffer that is not saved."""

        def __init__(self, config: QuantizerConfig, width: int) -> None:
            super().__init__(config, width)
            self.register_buffer("sums", torch.ones(width))
            self.register_buffer("turn", torch.eye(width), persistent=False)

        def affinity(self, vectors: Tensor) -> Tensor:
            return super().affinity(vectors @ self.turn * self.sums)

    QUANTIZERS.add("turned", Turned)
    try:
        tokenizer = VQGAN(override(named("smoke"), ["tokenizer.quantizer.kind=turned"]).tokenizer)
    finally:
        QUANTIZERS.remove("turned")
    before = tokenizer.fingerprint()
    with torch.no_grad():
        getattr(tokenizer.quantizer, name)[0] += 1
    assert tokenizer.fingerprint() != before


def test_a_strangers_kind_with_the_tensors_of_a_built_in_one_has_another_fingerprint() -> None:
    class Farthest(VectorQuantizer):
        """Other words for the same vectors."""

        def affinity(self, vectors: Tensor) -> Tensor:
            return -super().affinity(vectors)

    QUANTIZERS.add("farthest", Farthest)
    try:
        theirs, ours = (
            VQGAN(override(named("smoke"), [f"tokenizer.quantizer.kind={kind}"]).tokenizer)
            for kind in ("farthest", "vq")
        )
    finally:
        QUANTIZERS.remove("farthest")
    theirs.load_state_dict(ours.state_dict())
    assert theirs.fingerprint() != ours.fingerprint()
