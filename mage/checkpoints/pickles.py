"""Reading pickled checkpoints as data: tensors, plain values and argparse.Namespace; no code of the file runs."""

import argparse
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class _Inert:
    """Placeholder for an object of another library: it accepts any state and keeps none."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __hash__(self) -> int:
        return id(self)


def unpickle(path: Path, *, inert: tuple[str, ...] = ()) -> Any:
    """The content of a checkpoint file. Raises ValueError if it is damaged or holds more than data.

    inert: prefixes of the names of classes whose objects are replaced by placeholders instead of being refused, such as
    "pytorch_lightning.": training state that is not used.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    allowed: list[Any] = [argparse.Namespace]
    while True:
        try:
            with torch.serialization.safe_globals(allowed):
                # Only zip archives can be mapped into memory, so that an optimizer's state is never read from disk.
                return torch.load(str(path), weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
        except Exception as error:  # a damaged file can raise any exception
            refused = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
            if refused and refused[1].startswith(inert) and inert and len(allowed) < 50:
                allowed.append((type("Inert", (_Inert,), {}), refused[1]))
                continue
            if refused:
                raise ValueError(
                    f"{path} holds a {refused[1]} and was not read: only tensors, plain values and argparse.Namespace "
                    "are, because other pickled objects can run code"
                ) from None
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{path} is cut off, damaged or not a checkpoint ({reason})") from None


def check_tensors(path: Path, state: Any) -> None:
    """Raise ValueError unless these are named, ordinary tensors: not sparse, quantized or without content."""
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not the named tensors of a checkpoint")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"{path} is no checkpoint: {name!r} is a {type(tensor).__name__}, not a tensor")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ValueError(f"{path} is no checkpoint: {name} is a sparse, quantized or empty tensor")
