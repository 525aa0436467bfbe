"""`mage info`: describe a model folder."""

from typing import Any

import mage
from mage.cli.console import emit
from mage.cli.options.info import Options
from mage.nn.grids import written


def run(options: Options) -> None:
    """Print sizes and numbers of parameters."""
    model = mage.load(options.model, precision=options.precision, device=options.device)
    values: dict[str, Any] = {"precision": model.precision, "device": str(model.device)}
    lines = [f"{options.model}: runs in {model.precision} on {model.device}"]
    for name in ("tokenizer", "transformer"):
        module = getattr(model, name)
        if module is None:
            lines.append(f"{name}: none")
            continue
        count = sum(parameter.numel() for parameter in module.parameters())
        values[name] = {"kind": type(module).__name__, "parameters": count, "grid": list(module.grid)}
        lines.append(f"{name}: {type(module).__name__}, {count / 1e6:.2f} M parameters, {written(module.grid)} tokens")
    if model.tokenizer is not None:
        size = [model.channels, *model.image_size]
        values["image"] = size
        lines.append(f"images: {size[0]} channel(s), {size[1]} x {size[2]} pixels, {model.tokenizer.num_codes} codes")
    emit(options, values, "\n".join(lines))
