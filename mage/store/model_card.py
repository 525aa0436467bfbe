"""The card of a shared model: README.md with the Hub's settings in front, made from what is known of the model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from torch import nn

from mage.models import Classifier, MAGETransformer
from mage.nn.grids import written
from mage.store.parts import ModelParts

LIBRARY = "mage-vision"
CLASS_NAMES = "class_names"
"""A note of the model; some names begin with a slash and are no paths."""
MARK = "<!-- Written by mage; a card without this line is not overwritten. -->"
USES = {
    "unconditional-image-generation": "images = model.generate(16, seed=0)  # {shape}, float in [0, 1]",
    "image-classification": "scores = model.classify(images)  # one row per image",
    "image-feature-extraction": "features = model.features(images)  # one row per image",
    "image-to-image": "tokens = model.encode(images)  # integers; model.decode_tokens(tokens) restores the images",
}
"""Task of the Hub -> what a model of this kind is used for, in a line."""


@dataclass(frozen=True)
class Measure:
    """One number of a model."""

    name: str
    """As in records."""
    title: str
    value: float
    shown: str
    """The value with its unit."""
    meaning: str = ""


@dataclass(frozen=True)
class CardFacts:
    """What a card says beyond what the model itself knows."""

    title: str = ""
    """In one line: what it makes."""
    data: str = ""
    """Training images; default: the recipe's data set."""
    license: str | None = None
    """Of the weights, such as mit; None: not stated."""
    measures: Sequence[Measure] = ()
    limits: Sequence[str] = ()


def task_of(parts: ModelParts) -> str:
    """The Hub's name of what a model is used for."""
    if parts.transformer is None:
        return "image-to-image"
    if isinstance(parts.transformer, MAGETransformer):
        return "unconditional-image-generation"
    return "image-classification" if isinstance(parts.transformer, Classifier) else "image-feature-extraction"


def card_of(name: str, parts: ModelParts, facts: CardFacts, *, loaded_by: str = "") -> str:
    """The card as Markdown.

    name: user/name, or that of a folder. loaded_by: what `mage.load` is given, such as user/name@branch; default: name.
    """
    parts = replace(parts, recipe=without_paths(parts.recipe))
    trained_on = facts.data or str(_recipe(parts, "data").get("name", ""))
    method = str(_recipe(parts, "method").get("name", "")) or ("mage" if parts.transformer is not None else "vqgan")
    lines = ["---", yaml.safe_dump(_settings(name, parts, facts, trained_on), sort_keys=False).rstrip(), "---", MARK]
    lines += ["", f"# {name.split('/')[-1]}{': ' + facts.title if facts.title else ''}", ""]
    lines += [f"- **Method**: {method}, of [mage](https://pypi.org/project/{LIBRARY}/)"]
    lines += [f"- **Training images**: {trained_on}"] if trained_on else []
    lines += [f"- **{title}**: {text}" for title, text in _networks(parts)]
    names = parts.notes.get(CLASS_NAMES, ())
    lines += [f"- **Classes**: {', '.join(map(str, names[:20]))}{' ...' if len(names) > 20 else ''}"] if names else []
    use = USES[task_of(parts)].format(shape=_shape(parts))
    lines += ["", "```python", '# pip install "mage-vision[hub]"', "import mage", ""]
    lines += [f'model = mage.load("{loaded_by or name}")', use, "```"]
    if facts.measures:
        lines += ["", "| measure | value | meaning |", "|---|---|---|"]
        lines += [f"| {measure.title} | {measure.shown} | {measure.meaning} |" for measure in facts.measures]
    if facts.limits:
        lines += ["", "## Limits", "", *(f"- {limit}" for limit in facts.limits)]
    if parts.recipe:
        recipe = yaml.safe_dump(parts.recipe, sort_keys=False).rstrip()
        lines += ["", "<details><summary>Recipe</summary>", "", "```yaml", recipe, "```", "", "</details>"]
    return "\n".join(lines) + "\n"


def without_paths(value: Any) -> Any:
    """JSON values with absolute paths, of any operating system, shortened to their last name; not in class names."""
    if isinstance(value, dict):
        return {name: inner if name == CLASS_NAMES else without_paths(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(inner) for inner in value]
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute():
                return kind(value).name
    return value


def _settings(name: str, parts: ModelParts, facts: CardFacts, trained_on: str) -> dict[str, Any]:
    """The Hub's settings: task, tags, licence, and the measures as it lists them."""
    task = task_of(parts)
    values: dict[str, Any] = {"library_name": LIBRARY, "pipeline_tag": task}
    if facts.license is not None:
        values["license"] = facts.license
    values["tags"] = ["mage", "masked-image-modeling", "vector-quantization"]
    if facts.measures and trained_on:
        data = {"type": str(_recipe(parts, "data").get("name") or "images"), "name": trained_on}
        metrics = [{"type": one.name, "name": one.title, "value": one.value} for one in facts.measures]
        result = {"task": {"type": task}, "dataset": data, "metrics": metrics}
        values["model-index"] = [{"name": name.split("/")[-1], "results": [result]}]
    return values


def _networks(parts: ModelParts) -> list[tuple[str, str]]:
    """Titles and sizes of the model's parts."""
    lines = []
    tokenizer = parts.tokenizer
    if tokenizer is not None:
        lines.append(("Images", f"{_shape(parts)[1:-1].removeprefix('n, ').replace(', ', ' x ')}"))
        lines.append(("Tokens", f"{written(tokenizer.grid)}, of {tokenizer.num_codes:,} codes"))
    for title, module in (("Tokenizer", tokenizer), ("Network", parts.transformer)):
        if isinstance(module, nn.Module):
            count = sum(parameter.numel() for parameter in module.parameters())
            lines.append((title, f"{type(module).__name__}, {count / 1e6:.2f} M parameters"))
    return lines


def _shape(parts: ModelParts) -> str:
    tokenizer = parts.tokenizer
    if tokenizer is None:
        return "token grids"
    return f"(n, {tokenizer.channels}, {tokenizer.image_size[0]}, {tokenizer.image_size[1]})"


def _recipe(parts: ModelParts, part: str) -> dict[str, Any]:
    """A part of the recipe; empty for a model without one."""
    value = parts.recipe.get(part)
    return value if isinstance(value, dict) else {}
