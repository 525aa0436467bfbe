"""Checkpoints in parts: each process writes its rows of every tensor, by torch.distributed.checkpoint.

`checkpoints/step-000000012.dcp/` holds safetensors files, one of each process, and `state.pt` with everything else. It
is written under a temporary name, in a thread while several processes go on training, and gets its own name when all of
it is on disk. It can be read by any number of processes, with weights that are cut or whole.
"""

import os
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from mage import atomic, distributed
from mage.training.checkpoint import drop_old_checkpoints, seal_parts

SPLIT = ("modules", "optimizers", "averages")
"""What of a training's state is written in parts."""
UNREADABLE = (OSError, LookupError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, CheckpointException)
"""What reading a damaged checkpoint raises."""


class ShardedWriter:
    """Writes checkpoints, one at a time; all processes must call its methods together."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._group = folder, distributed.new_group()
        self._writing: tuple[Future[Any], Path, int] | None = None
        self._named = False  # whether what is in `_writing` has its name already; in the first process only

    def begin(self, state: Mapping[str, Any], step: int, keep: int) -> None:
        """Begin to write; tensors are copied first, so that training may go on. keep: checkpoints to keep."""
        self.finish()
        path = self._folder / "checkpoints" / f"step-{step:09d}.dcp"
        temporary = path.with_name(f".{path.name}.tmp")
        tensors = dict(split_tensors({name: state[name] for name in SPLIT}))
        distributed.by_first_process(lambda: self._prepare(temporary, state, list(tensors)))
        flat = {"/".join(map(str, where)): value for where, value in tensors.items()}
        # One thread would copy by a stream of the first GPU, in which every process would then take memory.
        writer = HuggingFaceStorageWriter(str(temporary), thread_count=2, save_distributed=True)
        future: Future[Any] = Future()
        if self._group is None:  # PyTorch writes beside the training only if there are several processes
            future.set_result(_by_itself(save, flat, storage_writer=writer))
        else:
            started = async_save(flat, storage_writer=writer, process_group=self._group)
            assert isinstance(started, Future)
            future = started
        self._writing, self._named = (future, path, keep), False

    def _prepare(self, temporary: Path, state: Mapping[str, Any], paths: list[tuple[str | int, ...]]) -> None:
        shutil.rmtree(temporary, ignore_errors=True)  # half of one, of a run that was killed
        temporary.mkdir(parents=True)
        torch.save({**without_tensors(state), "split": [list(path) for path in paths]}, temporary / "state.pt")

    def publish(self) -> None:
        """Give a checkpoint its name if all of it has been written; does not wait.

        Others learn of it in `finish`, which all enter: they may notice the end of the writing at different steps.
        """
        if self._writing is not None and self._writing[0].done() and self._writing[0].exception() is None:
            self._name()

    def finish(self) -> None:
        """Wait until the last checkpoint is on disk. Raises OSError in all processes if it could not be written."""
        if self._writing is None:
            return
        future, path, _ = self._writing
        error = future.exception()
        if distributed.any_process(error is not None):
            self._writing = None
            if error is not None and not _full_disk(error):
                raise OSError(f"{path} was not written, the previous checkpoint is intact: {error}") from error
            raise OSError(f"the disk is full: {path} was not written; the previous checkpoint is intact")
        self._name()
        self._writing = None
        distributed.by_first_process(lambda: None)

    def _name(self) -> None:
        assert self._writing is not None
        _, path, keep = self._writing
        if self._named or not distributed.is_first():
            return
        self._named = True
        temporary = path.with_name(f".{path.name}.tmp")
        for file in temporary.iterdir():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        seal_parts(temporary)
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
        drop_old_checkpoints(self._folder, keep)


def _full_disk(error: BaseException) -> bool:
    return getattr(error, "errno", None) in atomic.FULL or "No space left" in str(error)


def read_numbers(path: Path) -> dict[str, Any]:
    """A checkpoint's content without the tensors that are cut. Raises ValueError if it cannot be read."""
    try:
        state: dict[str, Any] = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    return state


def _unreadable(path: Path, error: BaseException) -> ValueError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(
        f"the checkpoint {path} cannot be read ({reason}); if files of it are missing, move it away to resume from "
        "the one before"
    )


def read_sharded(path: Path, now: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's content, every process reading its rows. Raises ValueError if it cannot be read.

    now: the training's own state, whose tensors say how those of the checkpoint are to be cut; optimizers that have no
    states yet get those of the checkpoint, cut like their parameters ("parameters", by name of the optimizer).
    """
    state = read_numbers(path)
    try:
        places = [tuple(place) for place in state.pop("split")]
        reader = HuggingFaceStorageReader(str(path))
        sizes = reader.read_metadata().state_dict_metadata
        target: dict[str, Tensor] = {}
        for place in places:
            stored = sizes["/".join(map(str, place))]
            target["/".join(map(str, place))] = _room(stored.size, stored.properties.dtype, _like(place, now))  # type: ignore[union-attr]
        if distributed.world_size() == 1:
            _by_itself(load, target, storage_reader=reader)
        else:
            load(target, storage_reader=reader)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    for place in places:
        inside: Any = state
        for name in place[:-1]:
            inside = inside.setdefault(name, {})
        inside[place[-1]] = target["/".join(map(str, place))]
    return state


def _like(place: tuple[str | int, ...], now: Mapping[str, Any]) -> Tensor | None:
    """The tensor of this training that is cut like the one at `place`."""
    if place[0] == "optimizers":
        _, name, _, index, _ = place
        assert isinstance(index, int)
        parameter: Tensor = now["parameters"][name][index]
        return parameter
    inside: Any = now
    for name in place:
        inside = inside.get(name, {})
    return inside if isinstance(inside, Tensor) else None


def _by_itself(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """A function of distributed.checkpoint in one process, without its remark that there is only one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        return function(*arguments, **keywords, no_dist=True)


def _room(size: torch.Size, dtype: torch.dtype, like: Tensor | None) -> Tensor:
    if like is not None and like.shape == size:
        return torch.empty_like(like.detach(), dtype=dtype)
    return torch.empty(size, dtype=dtype)


def split_tensors(tree: Mapping[Any, Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, Tensor]]:
    """Tensors of nested dictionaries with the names that lead to them; single numbers are not worth cutting."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from split_tensors(value, (*path, name))
        elif isinstance(value, Tensor) and value.ndim:
            yield (*path, name), value.detach()


def without_tensors(tree: Mapping[Any, Any], *, top: bool = True) -> dict[Any, Any]:
    """The rest of a training's state."""
    rest = {}
    for name, value in tree.items():
        if top and name not in SPLIT:
            rest[name] = value
        elif isinstance(value, Mapping):
            rest[name] = without_tensors(value, top=False)
        elif not isinstance(value, Tensor) or not value.ndim:
            rest[name] = value
    return rest
