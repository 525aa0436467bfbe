"""Conversion of released checkpoints and of other libraries' tokenizers to models; loaded when used."""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("official", "foreign"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
