"""What the pages show works: Python blocks run, commands are understood, and those of the guides run on small data."""

import importlib
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mage.cli import parse
from mage.cli.examples import EXAMPLES
from mage.cli.main import COMMANDS, main
from mage.store import packaged

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OWN_TEST = ("export.md", "extending.md", "hub.md", "interop.md", "own_tokenizer.md")
"""Pages whose Python blocks run in a test of their own."""
FRAGMENTS = ("mage.decode_relaxed(start, logits",)
"""Beginnings of what is said about names that the reader has."""
QUIET = ("--device", "cpu", "--precision", "float32")
SHORTER = {
    "train-tokenizer": (
        "--set=tokenizer_training.steps=2", "--set=tokenizer_training.batch_size=4", "--set=tokenizer.width=8",
        "--set=tokenizer.quantizer.num_codes=32", "--set=tokenizer_loss.adversarial.weight=0",
        "--set=tokenizer_loss.perceptual=0",
    ),
    "pretrain": (
        "--set=pretraining.steps=2", "--set=pretraining.batch_size=4", "--set=model.depth=1", "--set=model.width=16",
        "--set=model.heads=2", "--set=model.decoder_depth=1", "--set=data.views=1",
    ),
    "plan": ("--no-measure",),
    "generate": ("--num-images=4", "--steps=2"),
    "edit": ("--steps=2",),
    "report": ("--no-pictures",),
}  # fmt: skip
"""Settings that are added to a command of a page so that it takes seconds."""
GUIDES = ("README.md", "five_minutes.md", "anomalies.md", "any_tokens.md", "own_images.md")
"""Pages whose commands run."""
SLOW = ("--minutes", "mage convert", "--processes", "models/mage-base")
"""Parts of commands that other tests run, or that need files from elsewhere."""


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in these languages; "" is a block without one."""
    return [text for language, text in BLOCK.findall(page.read_text()) if language in languages]


def commands(page: Path) -> list[list[str]]:
    """The words behind `mage` of each command that a page shows, in order."""
    lines = [line for block in blocks(page, "", "sh", "bash") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line.split(" > ")[0], comments=True)[1:] for line in lines if line.startswith("mage ")]


def parsed(name: str, *words: str) -> Any:
    kind = importlib.import_module(f"mage.cli.options.{name.replace('-', '_')}").Options
    return parse.parse(kind, list(words), program=f"mage {name}", description=COMMANDS[name], examples=EXAMPLES[name])


SHOWN = [(page, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=lambda part: part.stem if isinstance(part, Path) else part[0])
def test_a_command_that_a_page_shows_is_understood(page: Path, words: list[str]) -> None:
    assert words[0] in COMMANDS, f"{page.name} shows mage {words[0]}"
    parsed(*words)


def test_a_command_with_a_wrong_word_is_not_understood() -> None:
    with pytest.raises(parse.Mistake, match="--no-such-option"):
        parsed("generate", "--model", "m", "--out", "o", "--no-such-option")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "", "sh", "bash")], ids=lambda page: page.name)
def test_targets_and_extras_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    project = (ROOT / "pyproject.toml").read_text()
    for block in blocks(page, "", "sh", "bash"):
        assert set(re.findall(r"^make ([\w-]+)", block, re.MULTILINE)) <= targets
        for extras in re.findall(r"mage-vision\[([\w,]+)\]", block):
            assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras.split(","))


def photos(folder: Path, count: int, size: tuple[int, int] = (44, 36)) -> None:
    """Noise around a colour for each class."""
    generator = np.random.default_rng(0)
    for kind, colour in (("cat", 60), ("dog", 180)):
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            array = generator.normal(colour, 30, (size[1], size[0], 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(array).save(folder / kind / f"{number:03d}.jpg")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a reader of the pages works in: photographs, arrays and trained models under their names."""
    root = tmp_path_factory.mktemp("desk")
    photos(root / "photos", 20)
    photos(root / "new", 3)
    photos(root / "holiday", 3)
    shutil.copyfile(root / "photos" / "cat" / "000.jpg", root / "cat.jpg")
    for name in ("a.jpg", "b.jpg"):
        shutil.copyfile(root / "photos" / "dog" / "001.jpg", root / name)
    for run, model in (("demo", "digits"), ("photos", "cifar10"), ("good", "cifar10")):
        shutil.copytree(packaged.FOLDER / model, root / "runs" / run / "model")
        (root / "runs" / run / "recipe.yaml").write_text(f"name: {model}\n")
    generator = np.random.default_rng(0)
    for name, count in (("train", 64), ("test", 16)):
        np.save(root / f"{name}.npy", generator.integers(0, 96, (count, 16)))
    return root


@pytest.fixture
def at_desk(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the reader's folder as the working directory."""
    shutil.copytree(desk, tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    return tmp_path / "desk"


@pytest.mark.parametrize("name", GUIDES)
def test_the_commands_of_a_guide_run_in_their_order(name: str, at_desk: Path) -> None:
    for words in commands(next(page for page in PAGES if page.name == name)):
        if any(part in " ".join(["mage", *words]) for part in SLOW):
            continue
        if words[0] in ("train-tokenizer", "pretrain"):  # its folder holds the model that earlier lines were shown with
            shutil.rmtree(at_desk / words[words.index("--out") + 1], ignore_errors=True)
        main([*words, *SHORTER.get(words[0], ()), *QUIET])


PYTHON = [page for page in PAGES if blocks(page, "python") and page.name not in OWN_TEST]


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, at_desk: Path) -> None:
    if page.name == "adapting.md":
        pytest.skip("twenty minutes; tests/runs/test_adapt.py runs it with fewer steps")
    if page.name == "own_images.md":
        main(["probe", "--model", "runs/photos", "--data", "photos/", "--out", "runs/classifier", *QUIET])
        main(["embed", "photos/", "--model", "runs/photos", "--out", "features.parquet", *QUIET])
    scope: dict[str, Any] = {"images": torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
    for block in blocks(page, "python"):
        if not block.startswith(FRAGMENTS) and not any(part in block for part in FRAGMENTS):
            exec(compile(block, page.name, "exec"), scope)
