"""Options of `mage info`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mage.cli.options.base import Common


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Describe a model."""

    model: Annotated[Path, tyro.conf.Positional]
    """model or run folder"""
