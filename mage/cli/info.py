"""`mage info`: describe a model."""

from typing import Any

import mage
from mage.cli.console import emit
from mage.cli.options.info import Options
from mage.models import MAGETransformer
from mage.nn.grids import written
from mage.settings import to_dict
from mage.store import folder as store
from mage.store import packaged

CLASSES = 10
"""Names of classes in a line."""


def run(options: Options) -> None:
    """Print where a model is, its sizes, what it was trained on, its classes, and how it generates."""
    folder = store.find_folder(options.model)
    model = mage.load(folder, precision=options.precision, device=options.device)
    size = packaged.weights_bytes(folder)
    values: dict[str, Any] = {
        "folder": str(folder), "bytes": size, "precision": model.precision, "device": str(model.device),
    }  # fmt: skip
    lines = [f"{options.model}: runs in {model.precision} on {model.device}"]
    lines.append(f"files: {folder}, {size / 1e6:.1f} MB of weights")
    for name in ("tokenizer", "transformer"):
        module = getattr(model, name)
        if module is None:
            lines.append(f"{name}: none")
            continue
        count = sum(parameter.numel() for parameter in module.parameters())
        values[name] = {"kind": type(module).__name__, "parameters": count, "grid": list(module.grid)}
        lines.append(f"{name}: {type(module).__name__}, {count / 1e6:.2f} M parameters, {written(module.grid)} tokens")
    if model.tokenizer is not None:
        shape = [model.channels, *model.image_size]
        values["image"] = shape
        lines.append(
            f"images: {shape[0]} channel(s), {shape[1]} x {shape[2]} pixels, {model.tokenizer.num_codes} codes"
        )
    for title, told in (("trained", _training(model)), ("classes", _classes(model)), ("sampler", _sampler(model))):
        if told:
            values[title] = told
            text = ", ".join(told[:CLASSES]) if isinstance(told, list) else _pairs(told)
            more = f" and {len(told) - CLASSES} more" if isinstance(told, list) and len(told) > CLASSES else ""
            lines.append(f"{title}: {text}{more}")
    emit(options, values, "\n".join(lines))


def _training(model: mage.Mage) -> dict[str, Any]:
    """Recipe, method and data, as far as the model's recipe says; a released file has none."""
    recipe = model.recipe
    parts = {name: recipe.get(name) for name in ("data", "method")}
    told = {"recipe": recipe.get("name")}
    told |= {name: part.get("name") for name, part in parts.items() if isinstance(part, dict)}
    return {name: value for name, value in told.items() if value}


def _classes(model: mage.Mage) -> list[str]:
    return list(map(str, model.class_names))


def _sampler(model: mage.Mage) -> dict[str, Any]:
    """Settings of the sampler that are not the paper's; a word for a model with the paper's."""
    if not isinstance(model.transformer, MAGETransformer):
        return {}
    own, paper = to_dict(model.sampling), to_dict(mage.SamplingConfig())
    return {name: value for name, value in own.items() if value != paper[name]} or {"settings": "the paper's"}


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
