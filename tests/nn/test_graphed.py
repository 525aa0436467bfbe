"""Recording and replaying, with a recorder that counts in place of a GPU's."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import mage
from mage.nn.graphed import Graphed, Recorded, graphed
from mage.recipes import named


class Recorder:
    """Records a call as a GPU does: a replay reads the recorded inputs and overwrites the recorded output."""

    def __init__(self) -> None:
        self.recordings, self.replays = 0, 0

    def __call__(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Recorded:
        self.recordings += 1
        static = tuple(given.clone() for given in inputs)
        output = function(*static)

        def replay() -> None:
            self.replays += 1
            output.copy_(function(*static))

        return Recorded(static, output, replay)


def total(x: Tensor, y: Tensor) -> Tensor:
    return x * 2 + y


@torch.no_grad()
def test_each_shape_is_recorded_once_and_replayed_with_the_callers_values() -> None:
    recorder = Recorder()
    function = Graphed(total, record=recorder)
    for seed in range(3):
        for length in (2, 5):
            x, y = torch.rand(length) + seed, torch.rand(length)
            assert torch.equal(function(x, y), total(x, y))
    assert (recorder.recordings, recorder.replays) == (2, 6)


@torch.no_grad()
def test_results_are_the_callers_own_and_inputs_stay_as_they_are() -> None:
    function = Graphed(total, record=Recorder())
    x, y = torch.ones(2), torch.zeros(2)
    first = function(x, y)
    function(torch.full((2,), 7.0), y)
    assert first.tolist() == [2, 2]
    assert x.tolist() == [1, 1]


@torch.no_grad()
def test_beyond_the_number_of_shapes_calls_run_without_a_graph() -> None:
    recorder = Recorder()
    function = Graphed(total, most_shapes=2, record=recorder)
    for length in (1, 2, 3, 4, 1, 2):
        x, y = torch.rand(length), torch.rand(length)
        assert torch.equal(function(x, y), total(x, y))
    assert (recorder.recordings, recorder.replays) == (2, 4)


@torch.no_grad()
def test_another_type_or_layout_is_another_recording() -> None:
    recorder = Recorder()
    function = Graphed(total, record=recorder)
    square = torch.rand(3, 3)
    for x in (square, square.double(), square.T, square):
        assert torch.equal(function(x, x), total(x, x))
    assert recorder.recordings == 3


def test_with_gradients_nothing_is_recorded() -> None:
    recorder = Recorder()
    x = torch.ones(2, requires_grad=True)
    Graphed(total, record=recorder)(x, x).sum().backward()
    assert x.grad is not None
    assert recorder.recordings == 0


def test_on_a_cpu_a_function_stays_itself() -> None:
    assert graphed(total, torch.device("cpu"), enabled=True) is total
    assert graphed(total, torch.device("cuda"), enabled=False) is total


def test_a_model_replays_its_tokenizer_and_forgets_it_when_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = named("smoke")
    plain = mage.build(recipe.model, tokenizer=recipe.tokenizer, device="cpu")
    recorders: list[Recorder] = []

    def record_all(function: Callable[..., Tensor], device: torch.device, *, enabled: bool) -> Callable[..., Tensor]:
        assert enabled
        recorders.append(Recorder())
        return Graphed(function, record=recorders[-1])

    monkeypatch.setattr("mage.pipeline.networks.graphed", record_all)
    model = mage.Mage.of(plain.parts, device="cpu", graphs=True)
    images = torch.rand(5, 1, 8, 8)
    for _ in range(2):
        ids = model.encode(images, batch_size=2)
        assert torch.equal(ids, plain.encode(images, batch_size=2))
        assert torch.equal(model.decode_tokens(ids), plain.decode_tokens(ids))
    assert [(recorder.recordings, recorder.replays) for recorder in recorders] == [(2, 6), (1, 2)]
    model.to("cpu").encode(images)
    assert len(recorders) == 4
