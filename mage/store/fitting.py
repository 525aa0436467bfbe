"""Networks of a model folder: nothing is allocated before the sizes in config.json are those of the stored tensors."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file
from torch import Tensor, nn

from mage.settings import check_sizes

Network = TypeVar("Network", bound=nn.Module)


def restored(build: Callable[[], Network], settings: Any, path: Path) -> Network:
    """The network that `build` makes of `settings`, with the weights in `path`.

    Raises ValueError if it cannot be built, or its tensors are not those of the file; it is first built without memory.
    """
    check_sizes(settings, str(path.parent))
    stored = _shapes(path)
    try:
        with torch.device("meta"):
            expected = {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    except (RuntimeError, OverflowError, ZeroDivisionError, IndexError) as error:
        raise ValueError(f"the network in {path.parent} cannot be built: {str(error).splitlines()[0]}") from None
    wrong = sorted(stored.keys() ^ expected.keys())
    wrong += [name for name in stored.keys() & expected.keys() if stored[name] != expected[name]]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{path} does not fit its config.json: {', '.join(wrong[:3])}{more}")
    network = build()
    network.load_state_dict(read_tensors(path))
    return network


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises ValueError if it is missing, damaged or of another format."""
    return _read(path, lambda: load_file(path) if _has_text(path) else load(path.read_bytes()))


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    def shapes() -> dict[str, tuple[int, ...]]:
        if not _has_text(path):
            return {name: tuple(tensor.shape) for name, tensor in load(path.read_bytes()).items()}
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping

    return _read(path, shapes)


def _has_text(path: Path) -> bool:
    """Whether the name is UTF-8, as safetensors needs it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


Value = TypeVar("Value")


def _read(path: Path, read: Callable[[], Value]) -> Value:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        return read()
    except (SafetensorError, OSError, ValueError) as error:
        size = os.path.getsize(path)
        raise ValueError(f"{path} ({size:,} bytes) is damaged or not safetensors: {error}") from None
