"""A part as a program of `torch.export`, which is saved as it is (.pt2) or converted to ONNX.

The number of images stays open in both. ONNX files hold their weights, unless these exceed what one file may hold.
"""

import contextlib
import importlib.util
import io
import warnings
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from mage.export.parts import Part

OPSET = 20
"""Version of ONNX's operators: the first with Gelu; onnxruntime 1.17 and later read it."""
TRACED = 2
"""Images in the batch that a part is traced with; 0 and 1 would be taken for constants."""
ONE_FILE = 1_800_000_000
"""Bytes of weights that fit into an ONNX file, whose limit is 2 GB."""
NEEDED = ("onnx", "onnxscript")
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def check_installed(form: str) -> None:
    """Raise ValueError for a form that does not exist or whose packages are missing."""
    if form not in SUFFIXES:
        raise ValueError(f"models are exported as {' or '.join(SUFFIXES)}, not as {form!r}")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if form == "onnx" and missing:
        raise ValueError(f"ONNX files need {' and '.join(missing)}: pip install 'mage-vision[export]'")


def traced(part: Part) -> ExportedProgram:
    """The part as a graph of PyTorch's operators, without the files and lines of code that they come from."""
    examples = tuple(port.example(TRACED, seed=0) for port in part.inputs)
    count = Dim("n", min=1)
    with torch.no_grad():
        program = torch.export.export(part.network, examples, dynamic_shapes=tuple({0: count} for _ in examples))
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def write_torch(program: ExportedProgram, path: Path) -> None:
    """Save the program, for `torch.export.load`."""
    with open(path, "wb") as file:  # names that are not UTF-8 would end the process
        torch.export.save(program, file)


def write_onnx(program: ExportedProgram, part: Part, path: Path) -> None:
    """Convert the program to an ONNX file; large weights lie beside it, in a file with the same name and `.data`."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in part.network.state_dict().values())
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it reports its steps
        warnings.simplefilter("ignore")
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[port.name for port in part.inputs],
            output_names=[part.output.name],
            verbose=False,
        )
        assert converted is not None
        converted.save(path, external_data=size > ONE_FILE)
