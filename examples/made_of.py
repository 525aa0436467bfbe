"""What the files of an example were made of, so that other inputs are refused and not silently left unused."""

import json
from pathlib import Path
from typing import Any

from mage import atomic

FILE = "made_of.json"


def made_of(out: Path, inputs: dict[str, Any], *, begun: bool) -> None:
    """Write into `out` what its files are made of. Raises ValueError if it was made of other inputs.

    begun: there are files already; without a note of what they were made of, that is not known.
    """
    path = out / FILE
    if not begun:
        atomic.write_json(path, inputs)
    elif path.exists() and json.loads(path.read_text()) != inputs:
        raise ValueError(f"{out} was made of other inputs, see {FILE} there: choose another --out, or delete it")
