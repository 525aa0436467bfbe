"""Options of `mage export`."""

from dataclasses import dataclass

from mage.cli.options.base import Printing
from mage.cli.options.choices import ExportPart, FeaturePool
from mage.cli.options.places import Model, NewFolder


@dataclass(frozen=True, kw_only=True)
class Options(Printing):
    """Write what a model does as files that run without this library, always in float32."""

    model: Model
    """model or run folder, or the name of a packaged model"""
    onnx: NewFolder | None = None
    """folder for ONNX files and manifest.json; an older export there is replaced"""
    torch: NewFolder | None = None
    """folder for programs of torch.export (.pt2) and manifest.json"""
    parts: tuple[ExportPart, ...] = ()
    """encode: images to tokens; decode: tokens to images; features; logits: one decoding pass; classes: scores of a
    classifier; default: all that the model has"""
    pool: FeaturePool = "mean"
    """of the features: mean over the tokens, the class token, both concatenated, or both of each of the last four
    blocks"""
    check: bool = True
    """leave out the comparison of each file with the model on random images, which for ONNX files needs onnxruntime"""
