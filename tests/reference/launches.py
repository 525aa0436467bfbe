"""Launches for tests: nothing is shown."""

from pathlib import Path
from typing import Any

from mage.runs import Launch


def quiet(out: Path, **more: Any) -> Launch:
    """A launch into `out` without progress."""
    return Launch(out, progress=False, **more)
