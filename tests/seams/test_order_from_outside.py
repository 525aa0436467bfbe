"""A stranger's order of decoding, used by a model and by the command line."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

import mage
from mage.cli.main import main
from mage.recipes import named
from mage.sampling.orders import ORDERS


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
    arguments = [
        "generate",
        "--model",
        tmp_path / "model",
        "--num",
        1,
        "--order",
        "last-first",
        "--out",
        tmp_path / "out",
    ]
    main([str(argument) for argument in arguments])
    assert (tmp_path / "out" / "000000.png").is_file()
