"""Random streams are pure functions of their names."""

import itertools
import random

import numpy as np
import pytest
import torch

from mage import rng


def draw(*names: int | str) -> list[float]:
    seed, *rest = names
    return torch.rand(4, generator=rng.generator(int(seed), *rest)).tolist()


def test_equal_names_give_equal_numbers_whatever_else_was_drawn() -> None:
    first = draw(3, "mask", 7)
    draw(3, "mask", 6)
    torch.manual_seed(1)
    torch.rand(5)
    assert draw(3, "mask", 7) == first


def test_streams_are_the_same_on_every_machine_and_in_every_version() -> None:
    # Saved runs resume and published samples repeat only as long as these numbers stay.
    assert rng.stream_seed(0) == 2_631_537_505_891_389_924
    assert rng.stream_seed(3, "sample", 7) == 3_694_957_349_187_584_646


def test_names_that_differ_in_anything_give_other_streams() -> None:
    names = [(0,), (1,), (-1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "b", "a"), (0, "ab"), (0, "a", 1), (0, "a", "1"),
             (0, 1), (0, "1"), (0, 0), (0, 0, 0), (0, "a1"), (0, "0, 'a'"), (10, 1), (1, 0, 1)]  # fmt: skip
    seeds = [rng.stream_seed(*each) for each in names]
    assert len(set(seeds)) == len(names)
    draws = [draw(*each) for each in names]
    assert all(one != other for one, other in itertools.combinations(draws, 2))


def test_seeds_fit_into_63_bits_and_use_them() -> None:
    seeds = [rng.stream_seed(0, index) for index in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert sum(seed >= 2**62 for seed in seeds) in range(400, 600)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    rng.uniform_rows([rng.generator(0, "a")], 5, torch.zeros(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_row_does_not_depend_on_its_batch() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    whole = rng.uniform_rows([rng.generator(0, "sample", index) for index in range(5)], 7, like)
    assert whole.shape == (5, 7)
    assert whole.dtype == torch.float32
    assert ((whole >= 0) & (whole < 1)).all()
    assert whole.unique(dim=0).shape == (5, 7)
    part = rng.uniform_rows([rng.generator(0, "sample", index) for index in (3, 1)], 7, like)
    assert torch.equal(part, whole[[3, 1]])


def test_rows_go_on_where_their_generators_are() -> None:
    once = rng.uniform_rows([rng.generator(0, "a")], 10, torch.zeros(1))
    random = rng.generator(0, "a")
    twice = [rng.uniform_rows([random], 5, torch.zeros(1)) for _ in range(2)]
    assert torch.equal(torch.cat(twice, dim=1), once)


@pytest.mark.parametrize("ahead", [1, 3])
def test_rows_drawn_ahead_are_those_drawn_one_by_one(ahead: int) -> None:
    def generators() -> list[torch.Generator]:
        return [rng.generator(0, "a", index) for index in range(2)]

    one_by_one = generators()
    rows = rng.UniformRows(generators(), 7, torch.device("cpu"), ahead=ahead)
    for _ in range(5):
        assert torch.equal(rows.next(), rng.uniform_rows(one_by_one, 7, torch.zeros(1)))


def test_global_generators_are_seeded_inside_and_untouched_outside() -> None:
    def draw() -> tuple[float, float]:
        return random.random(), float(np.random.rand())

    before = random.getstate(), np.random.get_state()[1].tolist()
    with rng.global_generators(2**40 + 3):
        first = draw()
    with rng.global_generators(2**40 + 3):
        assert draw() == first
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
