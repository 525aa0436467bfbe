"""Where a run's numbers go beside metrics.jsonl: TensorBoard, Weights & Biases, Trackio, or a stranger's place.

A tracker starts only where the recipe asks for it (`run.trackers`). A new one is a class registered in TRACKERS.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mage import atomic
from mage.registry import Registry


@runtime_checkable
class Tracker(Protocol):
    """Takes numbers of a run as they come."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""

    def close(self) -> None:
        """Nothing more comes."""


TrackerKind = Callable[[Path, int, Mapping[str, Any]], Tracker]
"""(run folder, step that the run goes on from, the settings that decide what is learned) -> a tracker."""
TRACKERS: Registry[TrackerKind] = Registry(kind="tracker", group="mage.trackers")


def _needed(package: str, extra: str, error: ImportError) -> ValueError:
    return ValueError(f'the tracker {extra} needs {package}: pip install "mage-vision[tracking]" ({error})')


@TRACKERS.register("tensorboard")
class TensorBoard:
    """RUN/tensorboard; on resume, steps after the one that is resumed from are hidden."""

    def __init__(self, folder: Path, step: int, settings: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _needed("tensorboard", "tensorboard", error) from None
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Nothing more comes."""
        self._writer.close()


class _Online:
    """What Weights & Biases and Trackio, whose interfaces agree, have in common.

    The run's number is kept in the run folder, so that a resumed run goes on in the same place.
    """

    package = ""

    def __init__(self, folder: Path, step: int, settings: Mapping[str, Any]) -> None:
        import importlib

        try:
            library: Any = importlib.import_module(self.package)
        except ImportError as error:
            raise _needed(self.package, self.package, error) from None
        kept = folder / f"{self.package}.id"
        resumed = kept.read_text().strip() if step and kept.is_file() else None
        self._run = self._start(library, folder, resumed, settings)
        if resumed is None:
            atomic.write_text(kept, str(getattr(self._run, "id", "") or folder.name) + "\n")

    def _start(self, library: Any, folder: Path, resumed: str | None, settings: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Nothing more comes."""
        self._run.finish()


@TRACKERS.register("wandb")
class WeightsAndBiases(_Online):
    """Weights & Biases; WANDB_MODE=offline keeps everything below RUN/wandb."""

    package = "wandb"

    def _start(self, library: Any, folder: Path, resumed: str | None, settings: Mapping[str, Any]) -> Any:
        more = {"id": resumed, "resume": "allow"} if resumed else {}
        return library.init(project="mage", name=folder.name, dir=str(folder), config=dict(settings), **more)


@TRACKERS.register("trackio")
class Trackio(_Online):
    """Trackio, which keeps its numbers on this machine."""

    package = "trackio"

    def _start(self, library: Any, folder: Path, resumed: str | None, settings: Mapping[str, Any]) -> Any:
        name = resumed or folder.name
        return library.init(project="mage", name=name, config=dict(settings), resume="allow" if resumed else "never")
