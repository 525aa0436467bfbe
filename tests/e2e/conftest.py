"""A small model, images and a token cache on disk, for tests of the commands."""

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

import mage
from mage import images, runs
from mage.cli.main import main
from mage.models import MAGEConfig
from mage.recipes import named
from mage.settings import to_dict
from tests.reference.launches import quiet


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Things to give to commands, good and bad."""
    root = tmp_path_factory.mktemp("disk")
    recipe = named("smoke")
    sizes = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    model = mage.build(sizes, tokenizer=recipe.tokenizer, precision="float32")
    model.save(root / "model")
    mage.Mage(model.tokenizer, None).save(root / "tokenizer")
    mage.Mage(model.tokenizer, model.transformer, recipe=to_dict(recipe)).save(root / "trained")
    other = mage.build(sizes, tokenizer=recipe.tokenizer, precision="float32", seed=1)
    mage.Mage(other.tokenizer, None).save(root / "other-tokenizer")
    runs.tokenize(recipe, quiet(root / "tokens"), model)
    for name, size in (("photo", (20, 30)), ("square", (16, 16))):
        images.save_png(root / f"{name}.png", torch.rand(1, *size, generator=torch.Generator().manual_seed(0)))
    images.save_png(root / "mask.png", (torch.arange(16) < 8).float().expand(1, 16, 16))
    for label in ("a", "b"):
        for number in range(20):
            pixels = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(number)) * (0.5 if label == "a" else 1)
            images.save_png(root / "folder" / label / f"{number}.png", pixels)
    (root / "empty").mkdir()
    images.save_png(root / "one" / "only.png", torch.zeros(1, 8, 8))
    (root / "text.png").write_text("this is no image")
    (root / "text.yaml").write_text("name: [unclosed")
    (root / "wrong.yaml").write_text("name: x\nmodell: {}\n")
    (root / "list.json").write_text("[1, 2]")
    for name in ("truncated", "renamed", "no-config", "foreign"):
        (root / name).mkdir()
        for file in (root / "model").iterdir():
            (root / name / file.name).write_bytes(file.read_bytes())
    weights = root / "truncated" / "transformer.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    config = json.loads((root / "renamed" / "config.json").read_text())
    config["transformer"]["sizes"]["depth"] = 2
    del config["checksum"]
    (root / "renamed" / "config.json").write_text(json.dumps(config))
    (root / "no-config" / "config.json").unlink()
    (root / "foreign" / "config.json").write_text('{"model_type": "bert"}')
    return SimpleNamespace(root=root)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """Run `mage ...` in this process: exit code, standard output and standard error."""

    def run(*arguments: object) -> SimpleNamespace:
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run
