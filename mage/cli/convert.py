"""`mage convert`: a released checkpoint -> our folder, and a converted folder -> a released checkpoint."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mage.checkpoints import official
from mage.cli.options import Common, check_output_file, check_parent, emit


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Read released files (.pth) into a model folder; or write a converted folder back as .pth."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """released file(s): MAGE, tokenizer, both, linear probe or fine-tuned; or one folder made by `mage convert`"""
    out: Path
    """model folder to write; or, on the way back, a .pth file"""
    config: Path | None = None
    """JSON with sizes that stand in no tensor, such as num_heads"""
    allow_extra: bool = False
    """keep unknown tensors instead of refusing the file"""


def run(options: Options) -> None:
    """Convert and say what was kept and what was dropped."""
    if not options.files:
        raise ValueError("give the file to convert")
    for path in options.files:
        if not path.exists():
            raise ValueError(f"there is no file {path}")
    if len(options.files) == 1 and options.files[0].is_dir():
        check_output_file(options.out, (".pth", ".pt", ".ckpt"))
        official.to_released(options.files[0], options.out)
        emit(options, {"out": str(options.out)}, f"{options.out}: every tensor as it was released")
        return
    check_parent(options.out)
    config = None
    if options.config is not None:
        try:
            config = json.loads(options.config.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"--config {options.config} is not readable as JSON ({type(error).__name__})") from None
        config = config.get("config", config) if isinstance(config, dict) else config
    converted = official.convert(list(options.files), options.out, config=config, allow_extra=options.allow_extra)
    dropped = ", ".join(converted.dropped) or "nothing"
    emit(
        options,
        {
            "out": str(options.out),
            "kind": converted.kind,
            "dropped": converted.dropped,
            "extra": sorted(converted.extra),
        },
        f"{options.out}: {converted.kind}; {len(converted.extra)} tensors that the network does not use kept aside; "
        f"dropped: {dropped}",
    )
