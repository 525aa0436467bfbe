"""What a run was made of, kept with it: command, commit, data and hardware, for its report."""

import json
import time
from pathlib import Path
from typing import Any

from mage import atomic, distributed
from mage.data.datasets import ImageDataset
from mage.device import PRECISIONS
from mage.runs.record import command_line, commit, machine

FILE = "run.json"


def recorded_precision(out: Path) -> str | None:
    """The precision in which the run in `out` began; None if that is not recorded."""
    try:
        facts = json.loads((out / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    found = facts.get("precision") if isinstance(facts, dict) else None
    return found if found in PRECISIONS else None


def write_facts(
    out: Path, *, kind: str, device: str, precision: str, parameters: int, dataset: ImageDataset | None
) -> None:
    """Write run.json into a run folder when training starts.

    kind: tokenizer, mage or classifier. parameters: number of weights that are trained. dataset: the images of
    training, None for other tokens.
    """
    facts: dict[str, Any] = {
        "kind": kind,
        "command": command_line(""),
        "commit": commit(),
        "machine": machine(),
        "device": device,
        "precision": precision,
        "processes": distributed.world_size(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "parameters": parameters,
    }
    if dataset is not None:
        facts["images"], facts["classes"] = len(dataset), list(dataset.class_names)
    atomic.write_json(out / FILE, facts)
