"""A stranger's order of decoding, used by a model and by the command line."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

import mage
from mage.cli.main import main
from mage.recipes import named
from mage.sampling.orders import ORDERS, priorities

ROOT = Path(__file__).parent.parent.parent
PACKAGE = """import sys

import torch


def inwards(grid, generators):
    print(f"asked for {len(generators)} grid of {grid}", file=sys.stderr)
    rows, columns = torch.arange(grid[0])[:, None], torch.arange(grid[1])
    border = torch.minimum(torch.minimum(rows, grid[0] - 1 - rows), torch.minimum(columns, grid[1] - 1 - columns))
    return border.flatten().float().expand(len(generators), -1)
"""


def generate(folder: Path, order: str) -> list[str]:
    """Arguments for one image in `folder`/out from the model beside it."""
    given = ["--model", folder / "model", "--num", 1, "--order", order, "--out", folder / "out", "--device", "cpu"]
    return ["generate", *map(str, given)]


@pytest.fixture(autouse=True)
def last_first() -> Iterator[None]:
    @ORDERS.register("last-first")
    def order(grid: tuple[int, ...], generators: Sequence[torch.Generator]) -> torch.Tensor:
        return -torch.arange(math.prod(grid)).float().expand(len(generators), -1)

    yield
    ORDERS.remove("last-first")


def test_tokens_become_known_in_the_strangers_order(tmp_path: Path) -> None:
    model = mage.build(named("smoke").model, tokenizer=named("smoke").tokenizer, precision="float32")
    seen: list[torch.Tensor] = []
    forward = model.transformer.forward

    def watched(ids: torch.Tensor, *more: object) -> object:
        seen.append(ids == -1)
        return forward(ids, *more)

    model.transformer.forward = watched
    model.generate_tokens(2, steps=4, order="last-first")
    for unknown in seen:
        count = int(unknown[0].sum())
        assert unknown[0, :count].all(), "the first positions stay unknown for longest"
    assert int(seen[-1][0].sum()) < 16
    del model.transformer.forward
    model.save(tmp_path / "model")
    main(generate(tmp_path, "last-first"))
    assert (tmp_path / "out" / "000000.png").is_file()


def test_an_order_of_an_installed_package_needs_no_import(tmp_path: Path) -> None:
    """A stranger's package, as pip leaves it, is found by the command line in a process of its own."""
    (tmp_path / "site" / "spiral-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "spiral.py").write_text(PACKAGE)
    (tmp_path / "site" / "spiral-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: spiral\nVersion: 1.0\n"
    )
    (tmp_path / "site" / "spiral-1.0.dist-info" / "entry_points.txt").write_text(
        "[mage.orders]\ninwards = spiral:inwards\n"
    )
    mage.build(named("smoke").model, tokenizer=named("smoke").tokenizer).save(tmp_path / "model")
    path = f"{tmp_path / 'site'}{os.pathsep}{ROOT}"
    command = [sys.executable, "-m", "mage", *generate(tmp_path, "inwards")]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert ran.returncode == 0, ran.stderr
    assert "asked for 1 grid of (4, 4)" in ran.stderr
    assert (tmp_path / "out" / "000000.png").is_file()
    ran = subprocess.run(
        [sys.executable, "-m", "mage", *generate(tmp_path, "outwards")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert ran.returncode == 2
    assert "there is no order 'outwards'; there are confidence, halton, random, inwards" in ran.stderr


def test_an_order_of_the_wrong_shape_is_explained() -> None:
    @ORDERS.register("too-few")
    def too_few(grid: tuple[int, ...], generators: Sequence[torch.Generator]) -> torch.Tensor:
        return torch.zeros(grid)

    try:
        with pytest.raises(ValueError, match=r"order 'too-few' gave numbers of shape \(3, 4\) .* token: \(2, 12\)"):
            priorities("too-few", (3, 4), [torch.Generator()] * 2, torch.device("cpu"))
    finally:
        ORDERS.remove("too-few")
