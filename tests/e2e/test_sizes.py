"""From images to samples for 16 to 1,024 tokens, square and rectangular, one to seven channels, any number of codes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mage
from mage import runs
from mage.recipes import named
from tests.reference.launches import quiet


@pytest.mark.parametrize(
    ("size", "grid", "channels", "codes"),
    [((8, 8), (4, 4), 1, 16), ((64, 64), (32, 32), 3, 5), ((4, 64), (2, 32), 7, 300), ((24, 8), (12, 4), 4, 2)],
)
def test_nothing_assumes_a_size(
    size: tuple[int, int], grid: tuple[int, int], channels: int, codes: int, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for index in range(20):
        np.save(data / f"{index}.npy", np.random.default_rng(index).random((*size, channels), dtype=np.float32))
    recipe = named("smoke")
    transform = replace(recipe.data.transform, size=size)
    quantizer = replace(recipe.tokenizer.quantizer, num_codes=codes, warmup_steps=1)
    recipe = replace(
        recipe,
        data=replace(recipe.data, name=str(data), transform=transform, tokenizer_transform=transform),
        tokenizer=replace(recipe.tokenizer, image_size=size, channels=channels, quantizer=quantizer),
        tokenizer_training=replace(recipe.tokenizer_training, batch_size=4, steps=2),
        pretraining=replace(recipe.pretraining, batch_size=4, steps=2),
    )
    runs.train_tokenizer(recipe, quiet(tmp_path / "tokenizer"))
    tokenizer = runs.load_tokenizer(tmp_path / "tokenizer")
    cache = runs.tokenize(recipe, quiet(tmp_path / "tokens"), tokenizer)
    assert cache.grid == grid
    runs.pretrain(recipe, quiet(tmp_path / "run"), tokenizer, cache=cache)
    model = mage.load(tmp_path / "run")
    assert model.generate(2, steps=3).shape == (2, channels, *size)
    assert model.features(torch.rand(2, channels, *size)).shape == (2, 16)
