"""Whole numbers of the command line are bounded: one sentence, at once, whatever the number."""

import dataclasses
import importlib
import typing
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from mage.cli.main import COMMANDS
from mage.cli.options.bounds import Between, check_numbers
from mage.cli.parse import Mistake, parse

HUGE = str(2**63)
WORDS = {
    "edit": "--model m --image i.png --out o.png",
    "generate": "--model m --out o",
    "reconstruct": "--model m --image i.png --out o.png",
    "tune-sampler": "--model m",
    "probe": "--model m --data d",
    "pretrain": "--out o",
    "tokenize": "--out o",
    "plan": "",
    "reproduce": "--checkpoint c --data d --out o",
    "benchmark": "",
}
CASES = [
    ("edit", "--num", HUGE, "at most 1,000"),
    ("edit", "--expand", "10000000", "at most 4,096"),
    ("edit", "--grow", "10000000", "at most 4,096"),
    ("edit", "--steps", "0", "at least 1"),
    ("edit", "--top-k", HUGE, "at most"),
    ("edit", "--revisions", "-1", "at least 0"),
    ("edit", "--seed", HUGE, "at most 9,223,372,036,854,775,807"),
    ("generate", "--num-images", HUGE, "--num must be at most"),
    ("generate", "--seed", "-1", "at least 0"),
    ("generate", "--batch-size", HUGE, "at most"),
    ("generate", "--shard-size", HUGE, "at most"),
    ("generate", "--processes", "100000", "at most 1,024"),
    ("reconstruct", "--steps", HUGE, "at most 10,000"),
    ("tune-sampler", "--try-steps", f"8 {HUGE}", "at most 10,000"),
    ("tune-sampler", "--num", "1", "at least 2"),
    ("probe", "--epochs", HUGE, "at most"),
    ("pretrain", "--workers", HUGE, "at most 1,024"),
    ("pretrain", "--workers", "-1", "at least 0"),
    ("tokenize", "--views", HUGE, "at most"),
    ("tokenize", "--num-codes", "-5", "at least 1"),
    ("plan", "--images", str(10**18), "at most"),
    ("reproduce", "--num", HUGE, "at most"),
    ("benchmark", "--batch-sizes", f"4 {HUGE}", "at most"),
]


def options_of(command: str) -> list[type]:
    """The dataclasses of a command: one, or one for each of its subcommands."""
    kind = importlib.import_module(f"mage.cli.options.{command.replace('-', '_')}").Options
    return [typing.get_args(part)[0] for part in typing.get_args(kind)] or [kind]


@pytest.mark.parametrize(("command", "flag", "number", "message"), CASES)
def test_a_number_out_of_range_is_one_sentence(command: str, flag: str, number: str, message: str) -> None:
    words = [*WORDS[command].split(), flag, *number.split()]
    with pytest.raises(Mistake, match=message) as caught:
        parse(options_of(command)[0], words, program=f"mage {command}", description="x")
    assert "\n" not in str(caught.value)


def _holds(hint: object, kind: type) -> bool:
    if hint is kind or isinstance(hint, kind):
        return True
    return any(_holds(part, kind) for part in (*typing.get_args(hint), *getattr(hint, "__metadata__", ())))


@pytest.mark.parametrize("command", COMMANDS)
def test_no_whole_number_of_any_command_is_without_a_range(command: str) -> None:
    for kind in options_of(command):
        for name, hint in typing.get_type_hints(kind, include_extras=True).items():
            assert not _holds(hint, int) or _holds(hint, Between), (
                f"{command} {name}: a type of mage.cli.options.bounds"
            )


def test_ranges_apply_inside_tuples_and_to_optional_numbers() -> None:
    from mage.cli.options.edit import Options

    given = Options(model=Path("m"), image=Path("i"), out=Path("o"))
    check_numbers(given)
    check_numbers(dataclasses.replace(given, expand=(0, 4096), steps=1))
    for wrong in ({"expand": (3, -1)}, {"steps": 0}, {"box": (0, 0, 8, 10**7)}):
        with pytest.raises(ValueError, match="must be at"):
            check_numbers(dataclasses.replace(given, **wrong))


@pytest.mark.parametrize(
    "command", ["adapt", "demo", "finetune", "generate", "pretrain", "tokenize", "train-tokenizer"]
)  # those that several processes share
def test_options_reach_us_through_the_parser_of_torchrun(command: str) -> None:
    assert importlib.import_module(f"mage.cli.{command.replace('-', '_')}").PARALLEL
    for field in dataclasses.fields(options_of(command)[0]):
        name = {"num": "num-images"}.get(field.name, field.name.strip("_").replace("_", "-"))
        words = [command, f"--{name}", "8"]
        parsed = get_args_parser().parse_args(["--nproc-per-node", "2", "-m", "mage", *words])
        assert parsed.training_script_args == words
