"""The section that says what a run was made of: data, model, training, hardware, time, and the command to repeat it."""

from html import escape
from typing import Any

from mage.report.contents import Contents
from mage.report.glossary import finite, format_seconds, mapping
from mage.report.sections import Section
from mage.settings import read_yaml

MOST_NAMES = 12
"""Classes whose names are listed."""
TRAININGS = {"tokenizer": "tokenizer_training", "mage": "pretraining", "classifier": "optim"}
"""Part of a recipe with the schedule, by what was trained."""


def recipe_values(contents: Contents) -> dict[str, Any]:
    """The recipe as a dictionary; empty if it cannot be read: it is shown as text in any case."""
    try:
        values = read_yaml(contents.recipe)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def run_section(contents: Contents) -> Section:
    """Data, model, training, hardware, time and command, as far as the run folder says them."""
    recipe, run = recipe_values(contents), contents.run
    rows = {
        "Data": _data(recipe, run),
        "Model": _model(recipe, run),
        "Training": _training(contents, recipe, run),
        "Hardware": _hardware(contents, run),
        "Time": _time(contents, run),
        "Command": _word(run.get("command")) or _word(contents.results.get("command")),
        "Commit": _word(run.get("commit")) or _word(contents.results.get("commit")),
        "Seed": _word(recipe.get("seed", contents.results.get("seed"))),
    }
    pairs = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows.items() if text)
    lead = "What was trained, on what, and how to repeat it."
    body = f'<dl class="facts">{pairs}</dl>' if pairs else ""
    if contents.recipe:
        body += f"<details><summary>recipe.yaml</summary><pre>{escape(contents.recipe)}</pre></details>"
    return Section("run", "This run", lead, body)


def _word(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _counted(value: Any, unit: str) -> str:
    number = finite(value)
    return f"{number:,.0f} {unit}" if number is not None else ""


def _joined(*words: str) -> str:
    return ", ".join(word for word in words if word)


def _data(recipe: dict[str, Any], run: dict[str, Any]) -> str:
    data = mapping(recipe, "data")
    share = finite(mapping(data, "validation").get("share"))
    held = f"a further {100 * share:.3g} % held out for validation" if share else ""
    names = run.get("classes")
    classes = ""
    if isinstance(names, list) and names:
        listed = ", ".join(map(str, names)) if len(names) <= MOST_NAMES else ""
        classes = f"{len(names)} classes" + (f" ({listed})" if listed else "")
    return _joined(_word(data.get("name")), _counted(run.get("images"), "training images"), classes, held)


def _model(recipe: dict[str, Any], run: dict[str, Any]) -> str:
    model = mapping(recipe, "model")
    depth, width = _word(model.get("depth")), _word(model.get("width"))
    shape = f"{depth} blocks of width {width}" if depth and width and _trained(recipe, run) == "mage" else ""
    name = f"recipe {recipe['name']}" if _word(recipe.get("name")) else ""
    return _joined(name, shape, _counted(run.get("parameters"), "weights trained"))


def _trained(recipe: dict[str, Any], run: dict[str, Any]) -> str:
    kind = _word(run.get("kind"))
    return kind if kind in TRAININGS else ("classifier" if "optim" in recipe else "mage")


def _training(contents: Contents, recipe: dict[str, Any], run: dict[str, Any]) -> str:
    batch = finite(mapping(recipe, TRAININGS[_trained(recipe, run)]).get("batch_size"))
    steps = max((finite(line.get("step")) or 0 for line in contents.log), default=0)
    if not steps or batch is None:
        return ""
    images = finite(run.get("images"))
    passes = f"{steps * batch / images:.3g} passes over the data" if images else ""
    return _joined(f"{steps:,.0f} steps of {batch:,.0f}", passes)


def _hardware(contents: Contents, run: dict[str, Any]) -> str:
    processes = finite(run.get("processes")) or 1
    several = f"{processes:.0f} processes" if processes > 1 else ""
    machine = _word(run.get("machine")) or _word(contents.results.get("machine"))
    return _joined(machine, _word(run.get("device")), _word(run.get("precision")), several)


def _time(contents: Contents, run: dict[str, Any]) -> str:
    seconds = max((finite(line.get("seconds")) or 0.0 for line in contents.log), default=0.0)
    started = f"started {run['started']}" if _word(run.get("started")) else ""
    return _joined(f"{format_seconds(seconds)} of training" if seconds else "", started)
