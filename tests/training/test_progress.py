"""What a run says while it goes on, where there is no terminal: with a clock that the test moves."""

import logging
from pathlib import Path

import pytest

from mage import runs
from mage.recipes import named
from mage.recipes.schema import Recipe
from mage.runs import Launch
from mage.training import progress
from mage.training.progress import Progress


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == progress.__name__]


def test_off_a_terminal_there_is_a_line_a_minute_with_step_loss_pace_and_time_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Half a second a step and 10 images in each: one line after 5 seconds, and one every minute after it."""
    clock, asked = Clock(), []
    shown = Progress(1000, 0, 10, shown=True, clock=clock)

    def loss() -> float:
        asked.append(clock.now)
        return 2.0

    with caplog.at_level(logging.INFO, logger="mage"):
        for _ in range(300):
            clock.now += 0.5
            shown.step(loss)
    assert lines_of(caplog) == [
        "step 10 of 1000, loss 2.0000, 20 images/s, about 8 min left",
        "step 130 of 1000, loss 2.0000, 20 images/s, about 7 min left",
        "step 250 of 1000, loss 2.0000, 20 images/s, about 6 min left",
    ]
    assert asked == [1005.0, 1065.0, 1125.0], "reading a loss waits for the device: only where it is written"


def test_the_time_left_follows_a_machine_that_becomes_slower(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    shown = Progress(400, 0, 10, shown=True, clock=clock)
    with caplog.at_level(logging.INFO, logger="mage"):
        for step in range(200):
            clock.now += 0.5 if step < 130 else 2.0
            shown.step(lambda: 1.0)
    assert lines_of(caplog)[-1] == "step 190 of 400, loss 1.0000, 5 images/s, about 7 min left"


def test_a_resumed_run_counts_its_pace_from_where_it_went_on(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    shown = Progress(1000, 900, 10, shown=True, clock=clock)
    with caplog.at_level(logging.INFO, logger="mage"):
        for _ in range(10):
            clock.now += 0.5
            shown.step(lambda: 1.0)
    assert lines_of(caplog) == ["step 910 of 1000, loss 1.0000, 20 images/s, about 45 s left"]


def test_a_silent_run_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    shown = Progress(1000, 0, 10, shown=False, clock=clock)
    with caplog.at_level(logging.INFO, logger="mage"):
        for _ in range(300):
            clock.now += 0.5
            shown.step(lambda: 1.0)
    assert not caplog.records


@pytest.fixture
def recipe() -> Recipe:
    return named("smoke")


def test_a_run_says_what_it_sees_and_what_it_does_before_its_first_step(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "FIRST_ESTIMATE", 0.0)
    with caplog.at_level(logging.INFO, logger="mage"):
        runs.train_tokenizer(recipe, Launch(tmp_path / "run", device="cpu", precision="float32"))
    start, plan, first = [record.getMessage() for record in caplog.records][:3]
    assert start.startswith("digits, split train: ")
    assert "images in 10 classes to train on" in start
    assert "held out for validation, seen at 8 x 8 pixels" in start
    assert "12 steps of 16 images" in plan
    assert plan.endswith("float32 on cpu")
    assert first.startswith("step 1 of 12, loss ")
    assert " images/s, about " in first
    assert first.endswith(" left")
