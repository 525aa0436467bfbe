"""When a run is compiled, and what of it. That compiled steps compute the same is tested in tests/benchmarks."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mage import runs
from mage.masking import MaskRatioConfig
from mage.models import MAGEConfig, MAGETransformer
from mage.models.contrastive import ContrastiveConfig
from mage.recipes import named
from mage.recipes.resolve import Choice, from_yaml, resolve
from mage.recipes.schema import to_yaml
from mage.sampling.settings import SamplingConfig
from mage.settings import override
from mage.training.compiling import COMPILERS, LONG_RUN, compile_module, compiles, missing_for_compiling
from mage.training.contrastive import ContrastivePretraining
from mage.training.optim import OptimConfig
from mage.training.run import Compile
from mage.training.task import Task
from mage.vocabulary import Vocabulary
from tests.reference.launches import quiet

CPU, GPU = torch.device("cpu"), torch.device("cuda")
WORDS = Vocabulary.fresh(4)


def task(steps: int = LONG_RUN, *, one_graph: bool = True) -> Task:
    made = Task("mage", nn.Linear(1, 1), lambda start, share: iter(()), OptimConfig(steps=steps), num_images=1)
    made.one_graph = one_graph
    return made


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mage.training.compiling.missing_for_compiling", lambda device: "")


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program: None)


@pytest.mark.usefixtures("everything_installed")
def test_auto_compiles_long_runs_on_a_gpu_that_are_one_graph() -> None:
    assert compiles("auto", task(), GPU)
    assert not compiles("auto", task(LONG_RUN - 1), GPU)
    assert not compiles("auto", task(one_graph=False), GPU)
    assert not compiles("auto", task(), CPU)


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_on_and_off_are_obeyed_on_every_device(device: torch.device) -> None:
    assert compiles("on", task(1, one_graph=False), device)
    assert not compiles("off", task(), device)


@pytest.mark.usefixtures("nothing_installed")
def test_without_a_compiler_auto_and_off_train_and_on_names_what_is_missing() -> None:
    assert "g++" in missing_for_compiling(CPU)
    assert missing_for_compiling(torch.device("mps")) == "", "unknown: torch will tell"
    assert not compiles("auto", task(), GPU)
    assert not compiles("off", task(), CPU)
    with pytest.raises(ValueError, match=r"run.compile=on needs a compiler \(g\+\+, .*set it to off"):
        compiles("on", task(), CPU)


def test_one_of_the_compilers_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program: "/usr/bin/c++" if program == COMPILERS["cpu"][2] else None)
    assert missing_for_compiling(CPU) == ""


def test_triton_takes_the_compiler_of_the_environment_and_needs_the_headers_of_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("mage.training.compiling.HEADER", tmp_path / "Python.h")
    monkeypatch.setattr("shutil.which", lambda program: program if program in ("cc", "/opt/own-cc") else None)
    monkeypatch.delenv("CC", raising=False)
    assert "Python.h; python3-dev" in missing_for_compiling(GPU)
    (tmp_path / "Python.h").touch()
    assert "a compiler (gcc, clang" in missing_for_compiling(GPU), "Triton does not look for cc"
    monkeypatch.setenv("CC", "/opt/own-cc")
    assert missing_for_compiling(GPU) == ""


@pytest.mark.usefixtures("everything_installed")
def test_the_user_is_told_before_the_wait(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mage"):
        compiles("off", task(), CPU)
        assert caplog.text == ""
        compiles("on", task(), CPU)
    assert "a minute or two" in caplog.text
    assert "run.compile=off" in caplog.text


@pytest.mark.parametrize(
    ("written", "read"), [("true", "on"), ("false", "off"), ("on", "on"), ("off", "off"), ("auto", "auto")]
)
def test_recipes_that_knew_true_and_false_are_still_read(written: str, read: str, tmp_path: Path) -> None:
    before = to_yaml(named("smoke"))
    assert before.count("compile: auto") == 1
    (tmp_path / "old.yaml").write_text(before.replace("compile: auto", f"compile: {written}"))
    recipe = from_yaml(tmp_path / "old.yaml")
    assert recipe.run.compile == read
    (tmp_path / "new.yaml").write_text(to_yaml(recipe))
    assert from_yaml(tmp_path / "new.yaml") == recipe
    assert resolve(Choice(recipe="smoke", changes=[f"run.compile={written}"])).run.compile == read


def test_another_word_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"run.compile must be one of auto, on, off, not 'always'"):
        override(named("smoke"), ["run.compile=always"])


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Names of the modules that are compiled during a test, and whether as one graph."""
    modules: list[tuple[str, bool]] = []

    def note(module: nn.Module, fullgraph: bool = False, **more: Any) -> None:
        modules.append((type(module).__name__, fullgraph))

    monkeypatch.setattr(nn.Module, "compile", note)
    return modules


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize(
    ("setting", "method", "expected"),
    [
        ("auto", "mage", []),
        ("off", "mage", []),
        ("on", "mage", [("PretrainObjective", True)]),
        ("on", "mage-c", [("ContrastiveObjective", True)]),
    ],
)
def test_a_run_compiles_its_objective_as_one_graph(
    setting: Compile, method: str, expected: list[tuple[str, bool]], compiled: list[tuple[str, bool]], tmp_path: Path
) -> None:
    recipe = override(named("smoke"), [f"run.compile={setting}", f"method={{name: {method}}}"])
    plain = override(recipe, ["run.compile=off"])
    runs.train_tokenizer(plain, quiet(tmp_path / "tokenizer"))
    runs.pretrain(recipe, quiet(tmp_path / "run"), runs.load_tokenizer(tmp_path / "tokenizer"))
    assert compiled == expected


@pytest.mark.parametrize(("processes", "one_graph"), [(1, True), (2, False)])
def test_views_that_are_contrasted_across_processes_are_no_single_graph(
    processes: int, one_graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange of vectors inside of the forward pass would end it, and an asked-for whole graph then fails."""
    monkeypatch.setattr("mage.distributed.world_size", lambda: processes)
    network = MAGETransformer(MAGEConfig(8, 1, 1, decoder_width=8, decoder_depth=1, decoder_heads=1), WORDS, (2, 2))
    settings = {"masking": MaskRatioConfig(), "sampling": SamplingConfig(), "recipe": {}, "seed": 0, "num_images": 1}
    pairs = ContrastivePretraining(
        network, None, lambda start, share: iter(()), contrastive=ContrastiveConfig(), optim=OptimConfig(), **settings
    )
    assert pairs.one_graph is one_graph


def test_other_modules_are_compiled_by_their_blocks(compiled: list[tuple[str, bool]]) -> None:
    compile_module(nn.Sequential(nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])), whole=False)
    assert compiled == [("Linear", False), ("Linear", False)]
