"""A tokenizer of the user's own, from training to a loaded model: what docs/own_tokenizer.md promises."""

from pathlib import Path

import pytest
import torch

import mage
from mage import runs
from mage.recipes import named
from mage.settings import override
from mage.tokenizers import Tokenizer
from tests.reference.launches import quiet

ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_recipe_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "own_tokenizer.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(compile(code, "own_tokenizer.md", "exec"), scope)
    pictures, tokenizer = scope["images"], scope["tokenizer"]
    assert isinstance(pictures, torch.Tensor)
    assert pictures.shape == (4, 1, 8, 8)
    assert pictures.unique().numel() <= 16
    assert isinstance(tokenizer, Tokenizer)


class Thirds:
    """Pixels as three grey levels."""

    channels, image_size, grid, num_codes = 1, (8, 8), (8, 8), 3

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return (images[:, 0] * 2.999).long()

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        return ids[:, None] / 2

    def fingerprint(self) -> str:
        return "thirds"


def test_a_model_asks_for_the_tokenizer_it_was_trained_with(tmp_path: Path) -> None:
    recipe = override(named("smoke"), ["pretraining.steps=2", "model.depth=1"])
    tokenizer = mage.Mage(Thirds(), None)
    cache = runs.tokenize(recipe, quiet(tmp_path / "tokens"), tokenizer)
    runs.pretrain(recipe, quiet(tmp_path / "run"), tokenizer, cache=cache)
    bare = mage.load(tmp_path / "run")
    assert bare.tokenizer is None
    assert bare.generate_tokens(2).shape == (2, 8, 8)
    with pytest.raises(ValueError, match="tokenizer"):
        bare.generate(2)
    whole = mage.load(tmp_path / "run", tokenizer=Thirds())
    assert set(whole.generate(2).unique().tolist()) <= {0.0, 0.5, 1.0}

    class Others(Thirds):
        def fingerprint(self) -> str:
            return "others"

    with pytest.raises(ValueError, match="fingerprint thirds"):
        mage.load(tmp_path / "run", tokenizer=Others())
    runs.train_tokenizer(named("smoke"), quiet(tmp_path / "tokenizer"))
    with pytest.raises(ValueError, match="tokenizer of its own"):
        mage.load(tmp_path / "tokenizer", tokenizer=Thirds())
