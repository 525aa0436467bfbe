"""Models as files that run without this library: ONNX files and programs of `torch.export`."""

from mage.export.write import export as export
