"""Trackers: a stranger's, the built-in ones on stand-ins, and nothing that starts unasked."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from mage import runs
from mage.recipes import named
from mage.settings import override
from mage.training.runlog import RunLog, read_log
from mage.training.trackers import TRACKERS
from tests.reference.launches import quiet


class Notebook:
    """Keeps what it is told."""

    pages: ClassVar[list[tuple[int, dict[str, float]]]] = []
    closed: ClassVar[int] = 0

    def __init__(self, folder: Path, step: int, settings: Mapping[str, Any]) -> None:
        assert settings["tokenizer_training"]["steps"] == 12

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.pages.append((step, dict(values)))

    def close(self) -> None:
        Notebook.closed += 1


@pytest.fixture
def notebook() -> Iterator[type[Notebook]]:
    TRACKERS.add("notebook", Notebook)
    yield Notebook
    TRACKERS.remove("notebook")


def test_a_strangers_tracker_sees_what_the_log_holds(notebook: type[Notebook], tmp_path: Path) -> None:
    runs.train_tokenizer(override(named("smoke"), ["run.trackers=[notebook]"]), quiet(tmp_path / "run"))
    assert [step for step, _ in notebook.pages] == [line["step"] for line in read_log(tmp_path / "run")]
    assert notebook.closed == 1


def test_nothing_starts_because_a_package_is_installed(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write(1, {"loss": 1.0})
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_an_unknown_tracker_is_an_error_of_the_recipe() -> None:
    with pytest.raises(ValueError, match="there is no tracker 'pigeon'; there are tensorboard, wandb, trackio"):
        override(named("smoke"), ["run.trackers=[pigeon]"])


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_resumed_run_goes_on_where_it_was_tracked(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    logged: list[tuple[int, dict[str, float]]] = []

    def init(**words: Any) -> SimpleNamespace:
        started.append(words)
        run = SimpleNamespace(id="abc", log=lambda values, step: logged.append((step, values)), finish=lambda: None)
        return run

    monkeypatch.setitem(sys.modules, name, SimpleNamespace(init=init))
    for step in (0, 4):
        log = RunLog(tmp_path, step=step, trackers=[name], settings={"seed": 0})
        log.write(step + 1, {"loss": 2.0})
        log.close()
    assert logged == [(1, {"loss": 2.0}), (5, {"loss": 2.0})]
    assert started[0]["config"] == {"seed": 0}
    assert started[1]["resume"] == "allow"
    assert "abc" in started[1].values()


def test_a_missing_package_is_named_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"wandb needs wandb: pip install .*tracking"):
        runs.train_tokenizer(override(named("smoke"), ["run.trackers=[wandb]"]), quiet(tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_tensorboard_writes_where_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = RunLog(tmp_path, trackers=["tensorboard"])
    log.write(1, {"loss": 1.0})
    log.close()
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize("text", ["[1, 2]\n", "3\n", '{"step": "x"}\n', '{"loss": 1}\n', "\xff\n", '{"step": 1'])
def test_what_is_no_line_of_a_log_is_left_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 2.0}\n' + text.encode("latin-1"))
    assert read_log(tmp_path) == [{"step": 1, "loss": 2.0}]
