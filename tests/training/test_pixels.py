"""What methods on pixels keep of their encoder while they train it."""

from pathlib import Path

import pytest
import torch

import mage
from mage import runs
from mage.nn.positions import sincos_positions
from mage.recipes import named
from mage.settings import override
from tests.reference.every_verb import METHODS
from tests.reference.launches import quiet


@pytest.mark.parametrize("method", ["mae", "ijepa"])
def test_positions_stay_the_sines_they_were(tmp_path: Path, method: str) -> None:
    runs.pretrain(override(named("smoke"), METHODS[method]), quiet(tmp_path))
    encoder = mage.load(tmp_path, precision="float32", device="cpu").transformer
    expected = sincos_positions(encoder.grid, encoder.position.shape[-1])
    assert torch.equal(encoder.position[0].cpu(), expected)
    assert not torch.equal(encoder.class_token, torch.zeros_like(encoder.class_token))
