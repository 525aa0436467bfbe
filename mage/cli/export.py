"""`mage export`: a model -> ONNX files, programs of `torch.export`, or both, each in a folder with a manifest."""

from typing import Any

import mage
from mage.cli.console import emit, note
from mage.cli.options.export import Options
from mage.export import export
from mage.export.programs import OPSET
from mage.export.write import check_free


def run(options: Options) -> None:
    """Export, and print how far the files are from the model."""
    folders = {
        form: folder for form, folder in (("onnx", options.onnx), ("torch", options.torch)) if folder is not None
    }
    if not folders:
        raise ValueError("give --onnx FOLDER, --torch FOLDER, or both")
    if options.onnx == options.torch:
        raise ValueError(f"--onnx and --torch write into two folders, not both into {options.onnx}")
    for folder in folders.values():
        check_free(folder)
    model = mage.load(options.model, precision="float32", device="cpu")
    results: dict[str, Any] = {}
    lines = []
    for form, folder in folders.items():
        manifest = export(
            model,
            folder,
            form,
            parts=options.parts,
            pool=options.pool,
            checked=options.check,
            on_part=lambda part: note(options, f"writing {part} ..."),
        )
        results[form] = {"folder": str(folder), "largest_difference": manifest["largest_difference"]}
        written = ", ".join(file["file"] for file in manifest["files"].values())
        version = f" (opset {OPSET})" if form == "onnx" else ""
        compared = _compared(manifest["largest_difference"], options.check)
        lines.append(f"{folder}: {written}{version} and manifest.json; {compared}")
    emit(options, results, "\n".join(lines))


def _compared(differences: dict[str, float] | None, checked: bool) -> str:
    if differences is None:
        return f"not compared with the model ({'that takes onnxruntime' if checked else '--no-check'})"
    ids = differences.get("encode")
    floats = [value for name, value in differences.items() if name != "encode"]
    parts = [f"largest difference from the model {max(floats):.1g}"] if floats else []
    parts += [f"{ids:.1%} of the tokens differ"] if ids is not None else []
    return ", ".join(parts)
