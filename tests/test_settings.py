"""Dataclass trees as plain values and back: strict, and every error names its setting."""

import json
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import yaml

from mage import settings


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: Literal["plain", "fancy"] = "plain"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"rate must not be negative, is {self.rate}")


@dataclass(frozen=True)
class Outer:
    name: str
    steps: int = 10
    flag: bool = False
    betas: tuple[float, float] = (0.9, 0.95)
    widths: tuple[int, ...] = (1, 2)
    inner: Inner = field(default_factory=Inner)
    second: Inner | None = None


FULL = Outer("x", 20, True, (0.5, 1e-3), (4,), Inner(2.0, "fancy", 7), Inner())


@pytest.mark.parametrize("config", [Outer("x"), FULL])
def test_a_tree_survives_yaml_and_json(config: Outer) -> None:
    plain = settings.to_dict(config)
    assert settings.from_dict(Outer, json.loads(json.dumps(plain))) == config
    assert settings.from_dict(Outer, yaml.safe_load(yaml.safe_dump(plain))) == config


def test_tuples_become_lists_and_come_back_as_tuples() -> None:
    plain = settings.to_dict(FULL)
    assert plain["widths"] == [4]
    assert plain["inner"] == {"rate": 2.0, "kind": "fancy", "limit": 7}
    back = settings.from_dict(Outer, plain)
    assert back.widths == (4,)
    assert isinstance(back.second, Inner)


def test_settings_that_are_left_out_keep_their_defaults() -> None:
    made = settings.from_dict(Outer, {"name": "y", "inner": {"limit": 3}})
    assert made == Outer("y", inner=Inner(limit=3))


def test_numbers_that_yaml_reads_as_text_or_int_become_floats() -> None:
    values = yaml.safe_load("name: x\ninner: {rate: 1e-4}\nbetas: [1, 0.5]")
    assert values["inner"]["rate"] == "1e-4", "or YAML has learned to read it"
    made = settings.from_dict(Outer, values)
    assert made.inner.rate == 1e-4
    assert all(isinstance(beta, float) for beta in made.betas)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x", "stpes": 3}, "Outer has no setting 'stpes'; it has name, steps"),
        ({"name": "x", "inner": {"rat": 3}}, "inner has no setting 'rat'; it has rate, kind, limit"),
        ({"name": 3}, "name must be str, not 3"),
        ({"name": "x", "steps": "3"}, "steps must be int, not '3'"),
        ({"name": "x", "steps": 3.0}, "steps must be int, not 3.0"),
        ({"name": "x", "steps": True}, "steps must be int, not True"),
        ({"name": "x", "steps": None}, "steps must be int, not None"),
        ({"name": "x", "flag": 1}, "flag must be bool, not 1"),
        ({"name": "x", "inner": {"rate": True}}, r"inner\.rate must be float, not True"),
        ({"name": "x", "inner": {"rate": "fast"}}, r"inner\.rate must be float, not 'fast'"),
        ({"name": "x", "inner": {"kind": "odd"}}, r"inner\.kind must be one of plain, fancy, not 'odd'"),
        ({"name": "x", "inner": {"limit": 1.5}}, r"inner\.limit must be int, not 1\.5"),
        ({"name": "x", "inner": 3}, "inner must be a mapping of names to values, not 3"),
        ({"name": "x", "betas": [0.9]}, r"betas must be .*tuple\[float, float\], not \[0\.9\]"),
        ({"name": "x", "betas": 0.9}, "betas must be"),
        ({"name": "x", "widths": [1, "two"]}, "widths must be int, not 'two'"),
        ({"name": "x", "second": {"kind": 1}}, r"second\.kind must be one of"),
        ({"name": "x", "inner": {"rate": -1}}, "rate must not be negative"),
        ({"steps": 3}, "Outer: .*'name'"),
        ([1], r"Outer must be a mapping of names to values, not \[1\]"),
        (None, "Outer must be a mapping"),
    ],
)
def test_wrong_settings_are_named_in_the_error(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings.from_dict(Outer, values)


@pytest.mark.parametrize("values", [float("nan"), float("inf"), "-inf", "1e400", 10**400])
def test_numbers_are_finite(values: Any) -> None:
    with pytest.raises(ValueError, match=r"inner\.rate must be a finite number"):
        settings.from_dict(Outer, {"name": "a", "inner": {"rate": values}})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"width": 2**24}, ""),
        ({"width": 2**24 + 1}, "width"),
        ({"inner": [{"heads": -(10**30)}]}, "heads"),
        ({"sizes": [1, [2, 10**8]]}, "sizes"),
        ({"depth": 1000, "name": "x", "flag": True, "none": None}, ""),
        ({"decoder_depth": 1001}, "decoder_depth"),
        ({"rate": float("nan")}, "rate"),
    ],
)
def test_sizes_beyond_any_network_are_named(values: dict[str, Any], named: str) -> None:
    if not named:
        settings.check_sizes(values, "model")
        return
    with pytest.raises(ValueError, match=f"model: {named} .* is beyond any network's"):
        settings.check_sizes(values, "model")


LAUGHS = "\n".join(
    ["- &a0 [x, x, x, x, x, x, x, x, x]"] + [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
)
"""Nine to the power of twelve words in twelve lines."""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "more than 100,000 values"),
        ("a: &a [*a]", "more than 100,000 values"),
        ("&a [b, {c: *a}]", "more than 100,000 values"),
        ("[" * 5000, "."),
        ("a: b: c", "mapping values are not allowed here"),
        ("2026-99-99", "month must be in"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
)
def test_yaml_that_is_no_settings_is_refused_at_once(text: str, reason: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=reason):
        settings.read_yaml(text)
    assert time.monotonic() - start < 5


def test_aliases_of_a_few_values_are_read() -> None:
    assert settings.read_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}


def test_overrides_leave_the_original_and_read_yaml() -> None:
    changed = settings.override(FULL, ["steps=3", "inner.limit=null", "second.kind = fancy", "widths=[7, 8]"])
    assert changed == Outer("x", 3, True, (0.5, 1e-3), (7, 8), Inner(2.0, "fancy", None), Inner(kind="fancy"))
    assert FULL.steps == 20


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("steps", "'steps' is not of the form name.name=value"),
        ("stpes=3", "there is no setting 'stpes'"),
        ("inner.none=3", r"there is no setting 'inner\.none'"),
        ("steps.more=3", r"there is no setting 'steps\.more'"),
        ("second.rate=3", r"there is no setting 'second\.rate'"),
        ("steps=[1", r"the value in 'steps=\[1' is not readable as YAML: expected"),
        ("name=\0", r"is not readable as YAML"),
    ],
)
def test_an_override_without_a_place_or_a_value_is_named(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings.override(Outer("x"), [assignment])


def test_differences_are_named_from_both_sides() -> None:
    first, second = settings.to_dict(FULL), settings.to_dict(Outer("x", 20, True, (0.5, 1e-3), (5,), Inner(3.0)))
    assert settings.differences(first, first) == []
    assert sorted(settings.differences(first, second)) == [
        "inner.kind: 'fancy' is not 'plain'",
        "inner.limit: 7 is not None",
        "inner.rate: 2.0 is not 3.0",
        "second: {'rate': 0.5, 'kind': 'plain', 'limit': None} is not None",
        "widths: [4] is not [5]",
    ]
    assert settings.differences({"a": 1}, {"b": 2}) == ["a: 1 is not None", "b: None is not 2"]
