"""Help: at once, without PyTorch, complete, with required options first and examples that parse."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import get_args

import pytest

import mage
from mage.cli.examples import EXAMPLES
from mage.cli.main import COMMANDS, GROUPS, main
from mage.cli.options import choices, tune_sampler
from mage.cli.parse import Mistake, parse
from mage.data.datasets import DATASETS
from mage.evaluation import anomaly, fewshot, knn, suite
from mage.evaluation.generation_metrics import GENERATION_METRICS
from mage.evaluation.representation import REPRESENTATION_PROTOCOLS
from mage.export.parts import PartName
from mage.recipes import FINETUNES, RECIPES
from mage.runs import gallery, production, reproduce
from mage.runs.adapt import Tuning
from mage.sampling import settings
from mage.settings import field_docs

Command = Callable[..., SimpleNamespace]

WITHOUT_TORCH = """
import contextlib, io, sys
from mage.cli.main import COMMANDS, main
heavy = ("torch", "torchvision", "timm", "sklearn", "scipy", "accelerate")
calls = [["--help"], ["--version"], ["generate", "--modle", "x"], ["nonsense"]]
calls += [[name, "--help"] for name in COMMANDS]
calls += [["evaluate", part, "--help"] for part in ("tokenizer", "representations", "generation")]
for call in calls:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(call)
        except SystemExit:
            pass
    loaded = [name for name in heavy if name in sys.modules]
    assert not loaded, (call, loaded)
"""


def test_help_and_mistakes_need_no_pytorch() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True)


def test_importing_the_library_imports_no_pytorch_and_names_are_loaded_when_used() -> None:
    code = "import sys, mage; assert 'torch' not in sys.modules; mage.images.load_image; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in mage.__all__:
        assert getattr(mage, name) is not None
    assert set(mage.__all__) <= set(dir(mage))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mage.nonsense  # noqa: B018


def test_old_names_stay_for_one_release() -> None:
    with pytest.warns(DeprecationWarning, match=r"mage\.MAGE is called mage\.MAGETransformer"):
        assert mage.MAGE is mage.MAGETransformer
    with pytest.warns(DeprecationWarning, match="MAGETransformer"):
        from mage.models import MAGE
    assert MAGE is mage.MAGETransformer


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_required_options_first_and_the_machine_last(name: str, command: Command) -> None:
    result = command(name, "--help") if name != "evaluate" else command(name, "generation", "--help")
    assert result.code == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.out)
    titles = re.findall(r"^\W+(\w+) options\b", text, re.MULTILINE)
    assert titles[-1] == "machine"
    if "required" in titles:
        assert titles[0] == "required"
    assert "None" not in text
    assert "ANNOTATED" not in text, "numbers with a range are shown as INT"
    assert not re.search(r"default:\s*(True|False|'')", text)
    assert not re.search(r"--\w+\.\w+", text), "options are not named after their group"


def test_every_command_is_in_one_group_and_has_two_examples_that_parse() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS) == sorted(EXAMPLES)
    for name, examples in EXAMPLES.items():
        assert len(examples) >= 2
        for example in examples:
            program, words = shlex.split(example)[:2], shlex.split(example)[2:]
            assert program == ["mage", name]
            kind = __import__(f"mage.cli.options.{name.replace('-', '_')}", fromlist=["Options"]).Options
            parse(kind, words, program=f"mage {name}", description=COMMANDS[name])


def test_a_mistake_is_one_sentence() -> None:
    from mage.cli.options.probe import Options

    with pytest.raises(Mistake, match=r"--modle.*\(see `mage probe --help`\)$"):
        parse(Options, ["--modle", "x"], program="mage probe", description="probe")


@pytest.mark.parametrize("name", ["compare", "convert", "export", "models", "shards"])
def test_commands_that_compute_on_no_device_refuse_one(name: str) -> None:
    kind = __import__(f"mage.cli.options.{name}", fromlist=["Options"]).Options
    for option in ("--device", "--precision"):
        with pytest.raises(Mistake, match=rf"{option}"):
            parse(kind, [*shlex.split(EXAMPLES[name][0])[2:], option, "cpu"], program=f"mage {name}", description=name)


def test_two_settings_after_one_word_are_told_how_to_come() -> None:
    from mage.cli.options.pretrain import Options

    words = ["--out", "o", "--set", "seed=1", "run.workers=2"]
    with pytest.raises(
        Mistake, match=r"^Unrecognized options: run\.workers=2: every setting needs a --set of its own \("
    ):
        parse(Options, words, program="mage pretrain", description="pretrain")


def test_words_that_help_names_are_those_of_the_library() -> None:
    assert list(RECIPES) == list(choices.RECIPES)
    assert list(FINETUNES) == list(choices.FINETUNES)
    assert DATASETS.names() == choices.DATASETS
    assert choices.RATIOS == gallery.RATIOS
    assert (choices.COUNTS, choices.DRAWS) == (fewshot.COUNTS, fewshot.DRAWS)
    assert choices.NEIGHBOURS == knn.NEIGHBOURS
    assert choices.PROTOCOLS == suite.BUILT_IN
    assert set(suite.BUILT_IN) == set(REPRESENTATION_PROTOCOLS)
    assert choices.Form == production.Form
    assert choices.Part == reproduce.Part
    assert choices.Tuning == Tuning
    assert choices.ExportPart == PartName
    assert (choices.MapPool, choices.MapScale) == (anomaly.Pool, anomaly.Scale)
    assert get_args(choices.GuidanceSchedule) == get_args(settings.GuidanceSchedule)
    assert get_args(choices.ReviseBy) == get_args(settings.ReviseBy)
    assert get_args(choices.Schedule) == get_args(settings.Schedule)


def test_help_names_every_metric_that_a_sampler_can_be_tuned_by() -> None:
    shown = re.findall(r"\w+", field_docs(tune_sampler.Options)["metric"])
    for name in GENERATION_METRICS:
        words = GENERATION_METRICS.get(name).words
        usual = [word for word in words if word not in ("fid", "kid")]  # the names of fd and kd on Inception
        assert name in shown or set(usual) <= set(shown), name


def test_a_mistyped_command_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    for typed, answer in (("explor", "did you mean 'explore'?"), ("xyzzy", "commands are demo,")):
        with pytest.raises(SystemExit) as stop:
            main([typed])
        assert stop.value.code == 2
        assert answer in capsys.readouterr().err


def test_ctrl_c_while_modules_are_imported_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mage.cli.main.importlib.import_module", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["models"])
    assert stop.value.code == 130
    assert capsys.readouterr().err.endswith("mage: stopped\n")
