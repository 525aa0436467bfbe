"""What a program needs to know to use exported files, as JSON: shapes, ids, pixels, and the sampler's schedule."""

from typing import Any

import mage
from mage.export.parts import Part, Port
from mage.export.programs import OPSET, SUFFIXES
from mage.masking import num_still_masked
from mage.models import Classifier, MAGEClassifier, MAGETransformer
from mage.nn.grids import area
from mage.pipeline import Mage
from mage.sampling.classes import NO_CLASS
from mage.sampling.decode import UNKNOWN
from mage.sampling.settings import SamplingConfig
from mage.settings import to_dict

FORMAT = "mage export 1"
FILE = "manifest.json"


def describe(model: Mage, parts: tuple[Part, ...], form: str, differences: dict[str, float] | None) -> dict[str, Any]:
    """The manifest. differences: of each part, as measured; None: not checked."""
    network, tokenizer = model.transformer, model.tokenizer
    values: dict[str, Any] = {
        "format": FORMAT,
        "mage": mage.__version__,
        "precision": "float32",
        "opset": OPSET if form == "onnx" else None,
        "files": {
            part.name: {
                "file": part.name + SUFFIXES[form],
                "inputs": [_port(port) for port in part.inputs],
                "output": _port(part.output),
            }
            for part in parts
        },
        "largest_difference": differences,
        "images": None,
        "tokens": None,
        "vocabulary": None,
        "classes": None,
        "sampling": None,
    }
    if tokenizer is not None or not isinstance(network, MAGETransformer | MAGEClassifier):
        height, width = model.image_size
        values["images"] = {
            "channels": model.channels,
            "height": height,
            "width": width,
            "pixels": "levels of 0 to 255, divided by 255",
            "mean": [0.0] * model.channels,
            "std": [1.0] * model.channels,
            "resize": "scaled to cover height and width, bicubic with antialiasing, then cropped at the centre",
        }
    if isinstance(network, MAGETransformer | MAGEClassifier):
        values["tokens"] = {"grid": list(network.grid), "num_codes": network.vocabulary.num_codes, "unknown": UNKNOWN}
        values["vocabulary"] = to_dict(network.vocabulary)
    elif tokenizer is not None:
        values["tokens"] = {"grid": list(tokenizer.grid), "num_codes": tokenizer.num_codes, "unknown": UNKNOWN}
    count = network.num_classes if isinstance(network, Classifier) else 0
    count = network.config.num_classes if isinstance(network, MAGETransformer) else count
    if count:
        values["classes"] = {"count": count, "names": list(model.class_names), "none": None, "shares": None}
        if isinstance(network, MAGETransformer):
            values["classes"] |= {"none": NO_CLASS, "shares": model.notes.get("class_shares")}
    if isinstance(network, MAGETransformer):
        values["sampling"] = to_dict(model.sampling) | {
            "still_unknown": still_unknown(area(network.grid), model.sampling)
        }
    return values


def still_unknown(length: int, settings: SamplingConfig) -> list[int]:
    """Number of tokens of a new image that are unknown after each step."""
    counts, now = [], length
    for step in range(settings.steps):
        last = step == settings.steps - 1
        now = 0 if last else num_still_masked(length, now, step, settings.steps, settings.schedule, settings.power)
        counts.append(now)
    return counts


def _port(port: Port) -> dict[str, Any]:
    limits = {} if port.limits is None else {"least": port.limits[0], "most": port.limits[1]}
    kind = "float32" if port.limits is None else "int64"
    return {"name": port.name, "dtype": kind, "shape": ["n", *port.shape], "meaning": port.meaning, **limits}
