"""`mage completion`: a script for bash, zsh or fish, made from the commands' options. Imports no PyTorch."""

import dataclasses
import importlib
import json
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mage.cli.main import COMMANDS
from mage.cli.options import choices
from mage.cli.options.completion import Options
from mage.settings import field_docs
from mage.store import packaged

WITHOUT_PYTORCH = True
NAMED = {"recipe": choices.RECIPES, "data": choices.DATASETS}
"""Options whose values have names, beside paths."""
MODELS = ("model", "tokenizer", "from", "init-from")
"""Options that take the name of a packaged model, beside paths."""


@dataclass(frozen=True)
class Flag:
    """One option of a command."""

    name: str
    help: str
    takes_value: bool
    values: tuple[str, ...] = ()
    """Words that it takes; files are offered, too, unless `only` these are allowed."""
    only: bool = False


def run(options: Options) -> None:
    """Print the script."""
    script = {"bash": bash, "zsh": zsh, "fish": fish}[options.shell]()
    print(json.dumps({"shell": options.shell, "script": script}) if options.json else script)


def flags_of(kind: Any) -> list[Flag]:
    """The options of a command, with `--help`; positional arguments are files and names, which need no flag."""
    hints = typing.get_type_hints(kind, include_extras=True)
    docs = {name: doc for owner in reversed(kind.__mro__) for name, doc in field_docs(owner).items()}
    flags = []
    for field in dataclasses.fields(kind):
        if _is_positional(hints[field.name]):
            continue
        marks = getattr(hints[field.name], "__metadata__", ())
        given = [mark.name for mark in marks if getattr(mark, "name", None)]
        name = given[0] if given else field.name.replace("_", "-")
        if field.default is True:  # a switch that is on is switched off
            name = f"no-{name}"
        literals = tuple(_literals(hints[field.name]))
        named = NAMED.get(name, packaged.names() if name in MODELS else ())
        takes_value = hints[field.name] is not bool
        flags.append(Flag(name, _short(docs.get(field.name, "")), takes_value, literals or named, bool(literals)))
    return [*flags, Flag("help", "show this help", False)]


def _short(doc: str) -> str:
    """A help text without its lists of names and what comes after the first semicolon."""
    return doc.split(";")[0].split(": {")[0].split(" ({")[0]


def positional_words(kind: Any) -> list[str]:
    """Words that a command takes without a flag, such as `bash` of `mage completion bash`."""
    hints = typing.get_type_hints(kind, include_extras=True).values()
    return [word for hint in hints if _is_positional(hint) for word in _literals(hint)]


def _is_positional(hint: Any) -> bool:
    return any("Positional" in repr(mark) for mark in getattr(hint, "__metadata__", ()))


def _literals(hint: Any) -> Iterator[str]:
    """Words of a Literal anywhere in a type."""
    for part in typing.get_args(hint):
        if typing.get_origin(hint) is typing.Literal:
            yield str(part)
        else:
            yield from _literals(part)


def commands() -> dict[str, dict[str, list[Flag]]]:
    """Command -> subcommand, or "" -> options."""
    table: dict[str, dict[str, list[Flag]]] = {}
    for name in COMMANDS:
        kind = importlib.import_module(f"mage.cli.options.{name.replace('-', '_')}").Options
        parts = typing.get_args(kind)
        table[name] = {"": flags_of(kind)} if not parts else {}
        for part in parts:
            own, mark = typing.get_args(part)
            table[name][mark.name] = flags_of(own)
    return table


def positionals() -> dict[str, list[str]]:
    """Command -> words that it takes without a flag."""
    kinds = {name: importlib.import_module(f"mage.cli.options.{name.replace('-', '_')}").Options for name in COMMANDS}
    return {name: positional_words(kind) for name, kind in kinds.items() if not typing.get_args(kind)}


def bash() -> str:
    """One function with a case for each command, and for each option that takes certain words."""
    lines = ["# mage completion bash", "_mage() {"]
    lines += ['  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"']
    lines += ['  local key="${COMP_WORDS[1]}" words="" files=1', "  COMPREPLY=()"]
    lines += ['  if [ "$COMP_CWORD" -eq 1 ]; then']
    lines += [f'    COMPREPLY=($(compgen -W "{" ".join(COMMANDS)} --help --version" -- "$word"))', "    return", "  fi"]
    table, positional = commands(), positionals()
    parts = {name: [part for part in own if part] for name, own in table.items()}
    nested = "|".join(name for name in table if parts[name])
    lines += [f'  case "$key" in {nested}) [ "$COMP_CWORD" -gt 2 ] && key="$key ${{COMP_WORDS[2]}}" ;; esac']
    lines += ['  case "$key" in']
    for name, own in table.items():
        if parts[name]:
            lines += [f'    "{name}") words="{" ".join(parts[name])}" files=0 ;;']
        for part, flags in own.items():
            lines += [f'    "{" ".join([name, part]).strip()}")']
            words = [*positional.get(name, ()), *(f"--{flag.name}" for flag in flags)]
            lines += [f'      words="{" ".join(words)}"', '      case "$before" in']
            for flag in flags:
                if flag.takes_value:
                    only = " files=0" if flag.only else ""
                    lines += [f'        --{flag.name}) words="{" ".join(flag.values)}"{only} ;;']
            lines += ["      esac ;;"]
    lines += ["  esac"]
    lines += ['  COMPREPLY=($(compgen -W "$words" -- "$word"))']
    lines += ["  local IFS=$'\\n'"]  # names of files may hold spaces
    lines += ['  if [ "$files" -eq 1 ] && [ "${word#-}" = "$word" ]; then COMPREPLY+=($(compgen -f -- "$word")); fi']
    return "\n".join([*lines, "}", "complete -o filenames -F _mage mage"])


def zsh() -> str:
    """The function of bash, which zsh understands with its module for that."""
    return "\n".join(["autoload -U +X compinit bashcompinit && compinit -u && bashcompinit", bash()])


def fish() -> str:
    """One line for each command and each option."""
    lines = ["# mage completion fish"]
    for name, text in COMMANDS.items():
        lines.append(f"complete -c mage -n __fish_use_subcommand -f -a {name} -d {_quoted(text)}")
    for name, words in positionals().items():
        if words:
            lines.append(f"complete -c mage -n '__fish_seen_subcommand_from {name}' -f -a {_quoted(' '.join(words))}")
    for name, own in commands().items():
        for part, flags in own.items():
            where = f"__fish_seen_subcommand_from {name}"
            if part:
                lines.append(f"complete -c mage -n '{where}' -a {part}")
                where += f"; and __fish_seen_subcommand_from {part}"
            for flag in flags:
                values = f" -a {_quoted(' '.join(flag.values))}" if flag.values else ""
                takes = (" -x" if flag.only else " -r") if flag.takes_value else ""
                lines.append(f"complete -c mage -n '{where}' -l {flag.name}{takes}{values} -d {_quoted(flag.help)}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """A word for fish, in which quotes and backslashes alone are special."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
