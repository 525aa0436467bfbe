"""Code length: the chain rule over random orders, estimated without bias from a few passes."""

import math
from itertools import permutations
from typing import Any

import pytest
import torch

from mage.sampling.code_length import check_passes, code_length
from tests.reference.code_length import mean_over_all_orders
from tests.sampling.test_surprise import CODES, build, codes

GRID = (2, 2)


@pytest.mark.parametrize("kind", ["mage", "maskgit", "class word"])
def test_its_mean_over_all_orders_is_that_of_the_chain_rule(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, grids = build(kind, GRID), codes(2, GRID)
    number = 1 if network.config.num_classes else None
    classes = None if number is None else torch.tensor([number, number])
    lengths = []
    for order in permutations(range(4)):
        monkeypatch.setattr(torch, "randperm", lambda *_, order=order, **__: torch.tensor(order))
        lengths.append(code_length(network, grids, passes=4, encoder_keep=1.0, seed=0, classes=classes))
    exact = torch.tensor([mean_over_all_orders(network, grid, number) for grid in grids.tolist()])
    torch.testing.assert_close(torch.stack(lengths).mean(dim=0), exact)


def test_numbers_of_known_tokens_are_spread_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("mage")
    known: list[int] = []

    def note(_: Any, inputs: tuple[Any, ...]) -> None:
        known.append(12 - int(inputs[1].masked[0].sum()))

    network.register_forward_pre_hook(note)
    for seed in range(30):
        code_length(network, codes(1), passes=3, encoder_keep=1.0, seed=seed)
    assert [set(known[first::3]) for first in range(3)] == [{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}]


def test_a_network_that_knows_nothing_needs_the_logarithm_of_the_codes() -> None:
    network = build("mage")
    for parameter in network.parameters():
        parameter.zero_()
    expected = torch.full((3,), 12 * math.log(CODES))
    torch.testing.assert_close(code_length(network, codes(3), passes=5, encoder_keep=0.5, seed=0), expected)


def test_a_grid_does_not_depend_on_its_batch() -> None:
    network, grids = build("mage"), codes(4)
    together = code_length(network, grids, passes=6, encoder_keep=0.5, seed=2)
    alone = torch.cat([code_length(network, grid[None], passes=6, encoder_keep=0.5, seed=2) for grid in grids])
    torch.testing.assert_close(together, alone)
    assert together.std() > 0


@pytest.mark.parametrize("passes", [0, 13])
def test_every_pass_has_its_own_number_of_known_tokens(passes: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and the 12 tokens of a grid, not {passes}"):
        check_passes((4, 3), passes)
