"""Completion scripts: what a shell offers after a few letters, asked of the shell itself."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mage.cli import completion
from mage.cli.main import COMMANDS
from mage.cli.options import generate
from mage.store import packaged

Command = Callable[..., SimpleNamespace]


def offered(script: str, *words: str, folder: Path) -> list[str]:
    """What bash offers in place of the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f'COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _mage; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{ask}"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines() if done.stdout.strip() else []


def test_bash_offers_commands_options_words_and_files(command: Command, tmp_path: Path) -> None:
    script = command("completion", "bash").out
    (tmp_path / "gallery of mine").mkdir()
    for words, expected in {
        ("mage", "gen"): ["generate"],
        ("mage", "generate", "--mod"): ["--model"],
        ("mage", "generate", "--guidance-s"): ["--guidance-schedule"],
        ("mage", "generate", "--schedule", "l"): ["linear"],
        ("mage", "generate", "--model", "di"): ["digits"],
        ("mage", "generate", "--class", "gal"): ["gallery of mine"],
        ("mage", "generate", "--out", ""): ["gallery of mine"],
        ("mage", "evaluate", ""): ["tokenizer", "representations", "generation"],
        ("mage", "evaluate", "generation", "--sam"): ["--samples"],
        ("mage", "adapt", "--fr"): ["--from"],
        ("mage", "completion", "fi"): ["fish"],
        ("mage", "nonsense", "--mod"): [],
    }.items():
        assert offered(script, *words, folder=tmp_path) == expected, words
    assert set(offered(script, "mage", "", folder=tmp_path)) == {*COMMANDS, "--help", "--version"}
    assert set(packaged.names()) <= set(offered(script, "mage", "generate", "--model", "", folder=tmp_path))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_is_offered_as_the_command_takes_it(name: str, command: Command) -> None:
    for part, flags in completion.commands()[name].items():
        shown = command(name, *([part] if part else []), "--help").out
        for flag in flags:
            assert f"--{flag.name}" in shown


def test_switches_take_no_word_and_help_is_told() -> None:
    flags = {flag.name: flag for flag in completion.flags_of(generate.Options)}
    assert set(flags) >= {"class", "num-images", "help"}
    assert len(flags) == len(dataclasses.fields(generate.Options)) + 1, "and --help"
    assert not flags["overwrite"].takes_value
    assert flags["schedule"].only
    assert not flags["model"].only, "a folder may stand there, too"
    everything = [flag.help for parts in completion.commands().values() for own in parts.values() for flag in own]
    assert not [text for text in everything if not text or "{" in text]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_script_is_read_by_the_shell_itself(shell: str, command: Command, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(command("completion", shell).out)
    ask = {
        "zsh": 'source ./script; print -r -- "$_comps[mage]"',
        "fish": "source ./script; complete -C 'mage generate --sched'; complete -C 'mage completion ba'",
    }[shell]
    words = [shell, "-f", "-c", ask] if shell == "zsh" else [shell, "--no-config", "-c", ask]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ("_mage" if shell == "zsh" else "--schedule") in done.stdout
    assert shell == "zsh" or "\nbash" in done.stdout


def test_the_script_is_made_without_pytorch_and_given_to_machines(command: Command) -> None:
    code = "import sys; from mage.cli.main import main; main(['completion', 'bash']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    result = json.loads(command("completion", "fish", "--json").out)
    assert result["shell"] == "fish"
    assert "complete -c mage" in result["script"]
