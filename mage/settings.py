"""Trees of frozen dataclasses <-> plain dictionaries, strictly: unknown keys and wrong types are errors."""

import ast
import dataclasses
import inspect
import itertools
import math
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

Config = TypeVar("Config")
MOST = 2**24
"""Largest number in the settings of a network; codes are the largest there are."""
MOST_BLOCKS = 1000
"""Largest number of layers of a kind, which cost time even where they cost no memory."""
MOST_VALUES = 10**5
"""Largest number of values in a file of settings."""
BLOCKS = ("depth", "blocks", "levels")
"""Ends of the names of such numbers."""


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass tree as dictionaries, lists and scalars, for YAML and JSON."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_dict(kind: type[Config], values: Any, *, where: str = "") -> Config:
    """Build the dataclass `kind` from `to_dict`'s output; keys may be left out. Raises ValueError for a wrong key."""
    if not isinstance(values, dict):
        raise ValueError(f"{where or kind.__name__} must be a mapping of names to values, not {values!r}")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = [str(name) for name in values if name not in names]
    if unknown:
        raise ValueError(f"{where or kind.__name__} has no setting {unknown[0]!r}; it has {', '.join(names)}")
    parts = {name: _value(hints[name], value, f"{where}.{name}".lstrip(".")) for name, value in values.items()}
    try:
        return kind(**parts)
    except TypeError as error:
        raise ValueError(f"{where or kind.__name__}: {error}") from None


def name_of(assignment: str) -> str:
    """The name in an assignment such as "pretraining.steps=100"."""
    return assignment.partition("=")[0].strip()


def override(config: Config, assignments: list[str]) -> Config:
    """Apply assignments such as "pretraining.steps=100" to a tree; values are read as YAML."""
    values = to_dict(config)
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"{assignment!r} is not of the form name.name=value")
        *parents, last = path.strip().split(".")
        branch = values
        for parent in parents:
            branch = branch.get(parent) if isinstance(branch, dict) else None  # type: ignore[assignment]
        if not isinstance(branch, dict) or last not in branch:
            alike = [name for name in _names(values) if name.endswith(f".{path.strip()}")]
            hint = f"is {alike[0]} meant?" if alike else "`mage plan` prints all of them"
            raise ValueError(f"there is no setting {path.strip()!r}; {hint}")
        branch[last] = _read_value(assignment, value)
    return from_dict(type(config), values)


def _names(values: dict[str, Any], where: str = "") -> list[str]:
    """Every setting of a tree by its full name."""
    names = []
    for name, value in values.items():
        names.append(f"{where}{name}")
        names += _names(value, f"{where}{name}.") if isinstance(value, dict) else []
    return names


def _read_value(assignment: str, value: str) -> Any:
    try:
        return read_yaml(value)
    except ValueError as error:
        raise ValueError(f"the value in {assignment!r} is not readable as YAML: {error}") from None


def read_yaml(text: str) -> Any:
    """Plain values in YAML. Raises ValueError, also for aliases that stand for more values than any settings have."""
    import yaml

    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-99-99
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0] or "it is not YAML"
        raise ValueError(reason) from None
    waiting, count = [values], 0
    while waiting:  # aliases make a tree without end, or one of billions of values, of a few lines
        value, count = waiting.pop(), count + 1
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if count + len(waiting) > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES:,} values")
    return values


def differences(first: Any, second: Any, where: str = "", *, added: bool = True) -> list[str]:
    """Names of the settings in which two trees differ, such as "pretraining.steps: 100 is not 200".

    added: whether names that only the second tree has count; a newer version of the library may have added them.
    """
    if isinstance(first, dict) and isinstance(second, dict):
        names = list(first) + [name for name in second if name not in first and added]
        parts = [differences(first.get(n), second.get(n), f"{where}.{n}".lstrip("."), added=added) for n in names]
        return [line for part in parts for line in part]
    return [] if first == second else [f"{where}: {first!r} is not {second!r}"]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hasattr(hint, "from_values"):  # one of several dataclasses, selected by the values
        return hint.from_values(value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where=where)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _value(next(kind for kind in arguments if kind is not type(None)), value, where)
    if origin is tuple and isinstance(value, tuple | list):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(_value(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    elif origin is Literal:
        if isinstance(value, bool) and {"on", "off"} <= {*arguments}:  # YAML reads on and off as true and false
            value = "on" if value else "off"
        if value in arguments:
            return value
        raise ValueError(f"{where} must be one of {', '.join(map(str, arguments))}, not {value!r}")
    elif hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-4 as a string
        except OverflowError:
            number = math.inf
        except ValueError:
            raise ValueError(f"{where} must be float, not {value!r}") from None
        if not math.isfinite(number):
            raise ValueError(f"{where} must be a finite number, not {number}")
        return number
    elif hint is int and isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"{where} has more digits than 64 bits hold")
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    name = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    raise ValueError(f"{where} must be {name}, not {value!r}")


def check_sizes(values: Any, where: str) -> None:
    """Raise ValueError if a number in the settings of a network, as `to_dict` gives them, is beyond any network's."""
    for name, number in _numbers(values):
        most = MOST_BLOCKS if name.endswith(BLOCKS) else MOST
        if not abs(number) <= most:
            raise ValueError(f"{where}: {name} {number:.3g} is beyond any network's, at most {most:,}")


def _numbers(values: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in nested settings, with the names nearest to them."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _numbers(value, str(key))
    elif isinstance(values, list):
        for value in values:
            yield from _numbers(value, name)
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield name, values


def field_docs(kind: type[Any]) -> dict[str, str]:
    """Docstrings of a dataclass's fields, which only its source holds; {} without a source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):
        return {}
    body = tree.body[0].body  # type: ignore[attr-defined]
    docs = {}
    for field, docstring in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(docstring, ast.Expr)
            and isinstance(docstring.value, ast.Constant)
        ):
            docs[ast.unparse(field.target)] = " ".join(str(docstring.value.value).split())
    return docs
