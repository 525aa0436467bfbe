"""Options of `mage models`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from mage.cli.options.base import Printing


@dataclass(frozen=True, kw_only=True)
class Options(Printing):
    """List the models that come with the package, or show one's card."""

    model: Annotated[str, tyro.conf.Positional] = ""
    """name of one, to see its card"""
