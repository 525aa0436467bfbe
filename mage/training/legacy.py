"""Conversion of recipes of version 0.1, in model folders, YAML files and checkpoints, to the current format."""

from collections.abc import Mapping
from typing import Any

MOVED = ("masking", "contrastive", "pixels", "conditions")
"""Parts that were siblings of `method` and now belong to it."""


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain values in the current format; values that already have it are returned unchanged."""
    recipe = dict(values)
    data = recipe.get("data")
    if isinstance(data, Mapping) and "validation_images" in data:
        images = {"images": data["validation_images"]}
        recipe["data"] = {key: value for key, value in data.items() if key != "validation_images"} | {
            "validation": images
        }
    if not isinstance(recipe.get("method", "mage"), str) or not (set(recipe) & {*MOVED, "method"}):
        return recipe
    name = recipe.pop("method", "mage")
    masking, contrastive, pixels, conditions = (dict(recipe.pop(part, None) or {}) for part in MOVED)
    if name == "mage" and contrastive.get("weight"):
        method = {"name": "mage-c", "masking": masking, "contrastive": contrastive}
    elif name == "mage":
        whole = recipe.get("model", {}).get("decoder_depth", 1) == 0
        method = {"name": "maskgit" if whole else "mage", "masking": masking, "conditions": conditions}
    elif name == "mae":
        method = {"name": "mae", "mae": dict(pixels.get("mae", {}))}
    else:
        kept = ("temperature", "hidden_width", "width")
        method = {"name": name, "contrast": {key: contrastive[key] for key in kept if key in contrastive}}
        method |= {"colour": pixels["colour"]} if "colour" in pixels else {}
    if name in ("mae", "simclr") and "patch_size" in pixels:
        method["patch_size"] = pixels["patch_size"]
    return recipe | {"method": method}


def comparable(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in a checkpoint, as far as a run can be resumed only with the same ones.

    Version 0.1 kept the whole recipe: with settings of the data that this kind of training does not read, and with the
    tokenizer's sizes where the fingerprint of its weights stands now.
    """
    if "content" in before:
        return dict(before)
    recipe = upgraded(before)
    if isinstance(recipe.get("data"), Mapping):
        recipe["data"] = {name: value for name, value in recipe["data"].items() if name in now.get("data", {})}
    return {
        name: value
        for name, value in recipe.items()
        if isinstance(value, Mapping) == isinstance(now.get(name), Mapping)
    }
