"""Trackers: a stranger's, the built-in ones on stand-ins, and nothing that starts unasked."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
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

ROOT = Path(__file__).parent.parent.parent


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
    Notebook.pages, Notebook.closed = [], 0
    TRACKERS.add("notebook", Notebook)
    yield Notebook
    TRACKERS.remove("notebook")


def test_a_registered_tracker_receives_the_metrics_of_the_log(notebook: type[Notebook], tmp_path: Path) -> None:
    runs.train_tokenizer(override(named("smoke"), ["run.trackers=[notebook]"]), quiet(tmp_path / "run"))
    assert notebook.closed == 1
    assert [step for step, _ in notebook.pages] == [line["step"] for line in read_log(tmp_path / "run")]


def test_nothing_starts_because_a_package_is_installed(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write(1, {"loss": 1.0})
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_an_unknown_tracker_is_an_error_of_the_recipe() -> None:
    with pytest.raises(ValueError, match="there is no tracker 'pigeon'; there are tensorboard, wandb, trackio"):
        override(named("smoke"), ["run.trackers=[pigeon]"])


@pytest.mark.parametrize(("name", "word"), [("wandb", "id"), ("trackio", "name")])
def test_a_resumed_run_goes_on_where_it_was_tracked(
    name: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stand-ins. Trackio's runs have an id that nobody can give again: it finds them by name."""
    started: list[dict[str, Any]] = []
    logged: list[tuple[int, dict[str, float]]] = []

    def init(**words: Any) -> SimpleNamespace:
        started.append(words)
        print("hello from the tracker")
        return SimpleNamespace(id=f"not kept {len(started)}", log=lambda values, step: logged.append((step, values)))

    monkeypatch.setitem(sys.modules, name, SimpleNamespace(init=init, finish=lambda: print("bye")))
    for folder, step in (("first", 0), ("first", 4), ("first", 0), ("elsewhere/first", 0)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        log = RunLog(tmp_path / folder, step=step, trackers=[name], settings={"seed": 0})
        log.write(step + 1, {"loss": 2.0})
        log.close()
    assert [step for step, _ in logged] == [1, 5, 1, 1]
    assert capsys.readouterr().out == "", "standard output belongs to --json"
    assert all(words["config"] == {"seed": 0} and words["resume"] == "allow" for words in started)
    first, resumed, anew, other = (words[word] for words in started)
    assert resumed == first
    assert len({first, anew, other}) == 3, "a run from the start, or in another folder of this name, is another run"


OFFLINE = """
import sys
from pathlib import Path
from mage.training.runlog import RunLog
for step in (0, 2):
    log = RunLog(Path("run"), step=step, trackers=[sys.argv[1]], settings={"seed": 0, "model": {"sizes": [1, 2]}})
    for more in (1, 2):
        log.write(step + more, {"loss": 3.0 - more, "bad": float("nan")})
    log.close()
"""


@pytest.fixture
def really_offline(tmp_path: Path) -> Callable[[str], None]:
    """Runs OFFLINE with a tracker, in a process of its own: the real packages start threads that outlive a run."""

    def run(name: str) -> None:
        pytest.importorskip(name)
        (tmp_path / "run").mkdir()
        more = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
        environment = {**os.environ, **more, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", OFFLINE, name]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout == "", "standard output belongs to --json"

    return run


def test_weights_and_biases_goes_on_offline(really_offline: Callable[[str], None], tmp_path: Path) -> None:
    really_offline("wandb")
    kept = (tmp_path / "run" / "wandb.id").read_text().strip()
    files = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] in ([f"run-{kept}.wandb"], [f"run-{kept}.wandb"] * 2)


def test_trackio_goes_on_offline(really_offline: Callable[[str], None], tmp_path: Path) -> None:
    really_offline("trackio")
    database = sqlite3.connect(tmp_path / "trackio" / "mage.db")
    rows = database.execute("select run_name, step, json_extract(metrics, '$.loss') from metrics order by step")
    kept = (tmp_path / "run" / "trackio.id").read_text().strip()
    assert rows.fetchall() == [(f"run-{kept}", step, loss) for step, loss in ((1, 2.0), (2, 1.0), (3, 2.0), (4, 1.0))]
    database.close()


def test_a_tracker_that_cannot_start_is_explained_and_the_others_are_closed(
    notebook: type[Notebook], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**words: Any) -> None:
        raise RuntimeError("no API key")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    with pytest.raises(ValueError, match=r"wandb could not start \(RuntimeError: no API key\); .*WANDB_MODE=offline"):
        RunLog(tmp_path, trackers=["notebook", "wandb"], settings={"tokenizer_training": {"steps": 12}})
    assert notebook.closed == 1
    assert list(tmp_path.iterdir()) == []


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


NO_LINES = {
    "list": "[1, 2]",
    "number": "3",
    "text as step": '{"step": "x"}',
    "truth as step": '{"step": true}',
    "NaN as step": '{"step": NaN}',
    "endless step": '{"step": -Infinity}',
    "step too large": '{"step": 1' + "0" * 400 + "}",
    "more digits than Python reads": '{"step": 1' + "0" * 5000 + "}",
    "no step": '{"loss": 1}',
    "no text": "\xff\x00",
    "cut": '{"step": 1',
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("text", NO_LINES.values(), ids=NO_LINES.keys())
def test_invalid_lines_of_a_log_are_left_out(text: str, tmp_path: Path) -> None:
    lines = [b'{"step": 1, "loss": 2.0}', text.encode("latin-1"), b'{"step": 2.0, "loss": 1.0}', text.encode("latin-1")]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert read_log(tmp_path) == [{"step": 1, "loss": 2.0}, {"step": 2.0, "loss": 1.0}]
    log = RunLog(tmp_path, step=1)
    log.write(2, {"loss": 0.5})
    log.close()
    assert read_log(tmp_path) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 0.5}]
