"""Options of `mage info`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from mage.cli.options.base import Common
from mage.cli.options.places import Model


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Describe a model."""

    model: Annotated[Model, tyro.conf.Positional]
    """model or run folder"""
