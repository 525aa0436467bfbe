"""Parsing of options: required ones first, then the command's own, then those shared with other commands.

Options are dataclasses; the string below a field is its help. tyro parses a copy of the dataclass with the fields in
groups, in the order of the help; a user's mistake is reported in one sentence.
"""

import contextlib
import dataclasses
import io
import re
import typing
from typing import Annotated, Any

import tyro

from mage.cli.options import choices
from mage.cli.options.bounds import check_numbers
from mage.settings import field_docs

WIDTH = 120


class Mistake(Exception):
    """A mistake in a command line, described in one sentence."""


def parse(kind: Any, arguments: list[str], *, program: str, description: str, examples: tuple[str, ...] = ()) -> Any:
    """Parse a dataclass of options, or a union of them as subcommands. Raises Mistake, or SystemExit after help."""
    complaint = io.StringIO()
    summary = description[0].upper() + description[1:] + "."
    if examples:
        summary += "\n\nexamples:\n" + "\n".join(f"  {example}" for example in examples)
    kinds = {in_groups(own): own for own in (_options_of(part) for part in typing.get_args(kind) or (kind,))}
    shown: Any = next(iter(kinds))
    if typing.get_args(kind):  # subcommands: the same names, with the fields in groups
        grouped = {own: copy for copy, own in kinds.items()}
        named = [(grouped[_options_of(part)], typing.get_args(part)[1]) for part in typing.get_args(kind)]
        shown = typing.Union[tuple(Annotated[copy, name] for copy, name in named)]  # noqa: UP007  # made at run time
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    try:
        with contextlib.redirect_stderr(complaint):
            parsed = tyro.cli(shown, args=arguments, prog=program, description=summary, config=config)
        values = {name: value for group in vars(parsed).values() for name, value in vars(group).items()}
        options = kinds[type(parsed)](**values)
        check_numbers(options)
        return options
    except ValueError as error:
        raise Mistake(f"{error} (see `{program} --help`)") from None
    except SystemExit as stop:
        if stop.code != 2:
            raise
        words = re.sub(r"\x1b\[[0-9;]*m", "", complaint.getvalue())
        words = re.sub(r"[\s\u2500-\u257f]+|-{4,}", " ", words.split("For full helptext")[0])
        # tyro puts its title in front of a sentence that begins with it
        sentence = re.sub(r"^(.+?) (\1: )", r"\2", " ".join(words.split()))
        if "--set" in arguments and re.match(r"Unrecognized options: [a-z_.]+=", sentence):
            sentence += ": every setting needs a --set of its own"
        raise Mistake(f"{sentence} (see `{program} --help`)") from None


def _options_of(part: Any) -> type[Any]:
    options: type[Any] = typing.get_args(part)[0] if typing.get_origin(part) is Annotated else part
    return options


TITLES = {
    "RecipeOptions": "recipe",
    "RunOptions": "run",
    "TrainOptions": "run",
    "TimedOptions": "run",
    "SamplerOptions": "sampler",
    "FeatureOptions": "features",
    "Common": "machine",
    "Printing": "machine",
}
"""Titles of the help's groups by the class that defines the options; a command's own options are titled "more"."""
ORDER = ("required", "more", "recipe", "features", "run", "sampler", "machine")


def in_groups(kind: type[Any]) -> type[Any]:
    """A dataclass of dataclasses, one for each group of the help, with the same fields."""
    hints = typing.get_type_hints(kind, include_extras=True)
    home = {name: owner for owner in reversed(kind.__mro__) for name in vars(owner).get("__annotations__", {})}
    docs = {name: doc for owner in reversed(kind.__mro__) for name, doc in field_docs(owner).items()}
    groups: dict[str, list[Any]] = {title: [] for title in ORDER}
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING
        title = "required" if required else TITLES.get(home[field.name].__name__, "more")
        words: dict[str, Any] = {"help": _filled(docs.get(field.name, ""))}
        if field.default is None or field.default == ():
            words |= {"help_behavior_hint": "", "metavar": _metavar(hints[field.name])}
        if field.default == "" or isinstance(field.default, bool):
            words["help_behavior_hint"] = ""  # the default of a switch is clear from its name
        hint = _annotated(hints[field.name], words)
        default = (
            dataclasses.field(kw_only=True) if required else dataclasses.field(kw_only=True, default=field.default)
        )
        groups[title].append((field.name, hint, default))
    parts = []
    for title, members in groups.items():
        if members:
            group = dataclasses.make_dataclass(title, members, frozen=True)
            needed = title == "required"
            default = dataclasses.field(kw_only=True) if needed else dataclasses.field(kw_only=True, default=group())
            parts.append((title, _annotated(group, {"prefix_name": False, "help": ""}), default))
    return dataclasses.make_dataclass(kind.__name__, parts, frozen=True)


def _annotated(hint: Any, words: dict[str, Any]) -> Any:
    """A type hint with tyro's settings."""
    return Annotated[hint, tyro.conf.arg(**words)]  # the hint is a run-time value


def _filled(doc: str) -> str:
    """A help text with names in place of {RECIPES} and the like."""
    for name in ("RECIPES", "FINETUNES", "DATASETS"):
        doc = doc.replace(f"{{{name}}}", ", ".join(getattr(choices, name)))
    return doc


def _metavar(hint: Any) -> str:
    """INT, PATH, A|B or INT INT for a hint that may be None."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    kinds = [part for part in typing.get_args(hint) if part is not type(None)]
    if type(None) in typing.get_args(hint):
        return _metavar(kinds[0])
    if typing.get_origin(hint) is typing.Literal:
        return "{" + ",".join(map(str, typing.get_args(hint))) + "}"
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        return f"{_metavar(parts[0])} ..." if parts[-1] is Ellipsis else " ".join(map(_metavar, parts))
    return str(getattr(hint, "__name__", hint)).upper()
