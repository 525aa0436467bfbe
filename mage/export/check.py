"""Whether an exported file computes what the model computes: run it on other images, and compare.

The batch has another size than the one that was traced, so that a fixed number of images would fail here.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mage.export.parts import Part

IMAGES = 3
"""Images of the comparison."""
TOLERANCE = 1e-4
"""Largest difference of floats, relative to the largest value if that is above 1."""
TIES = 1e-2
"""Largest share of ids that differ: two words can be as near as rounding."""

Run = Callable[[Sequence[Tensor]], Tensor]


def can_run(form: str) -> bool:
    """Whether files of this form can be run here."""
    return form == "torch" or importlib.util.find_spec("onnxruntime") is not None


def runner(form: str, part: Part, path: Path) -> Run:
    """The written file as a function."""
    if form == "torch":
        with open(path, "rb") as file:
            module = torch.export.load(file).module()

        def run(inputs: Sequence[Tensor]) -> Tensor:
            with torch.no_grad():
                result: Tensor = module(*inputs)
            return result

        return run
    session = importlib.import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [port.name for port in part.inputs]

    def run_onnx(inputs: Sequence[Tensor]) -> Tensor:
        given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run_onnx


def difference(part: Part, run: Run) -> float:
    """Largest difference between a file's output and the network's; for ids, the share that differs."""
    inputs = [port.example(IMAGES, seed=1) for port in part.inputs]
    with torch.no_grad():
        expected = part.network(*inputs)
    computed = run(inputs)
    if computed.shape != expected.shape or computed.dtype != expected.dtype:
        raise ValueError(
            f"the exported {part.name} gives {computed.dtype} of shape {tuple(computed.shape)}, the model "
            f"{expected.dtype} of shape {tuple(expected.shape)}"
        )
    if not expected.is_floating_point():
        return float((computed != expected).double().mean())
    return float((computed - expected).abs().max() / expected.abs().max().clamp(min=1))


def check(part: Part, form: str, path: Path) -> float:
    """The difference of a written file. Raises ValueError if it is above the tolerance."""
    found = difference(part, runner(form, part, path))
    what, limit = ("share of ids that differ", TIES) if part.output.limits else ("largest difference", TOLERANCE)
    if not found <= limit:  # true for NaN too
        raise ValueError(
            f"the exported {part.name} does not compute what the model does: the {what} is {found:.2g}, more than "
            f"{limit:g}; nothing was written (checked=False, or --no-check, writes it all the same)"
        )
    return found
