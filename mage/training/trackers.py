"""Where a run's numbers go beside metrics.jsonl: TensorBoard, Weights & Biases, Trackio, or a stranger's place.

A tracker starts only where the recipe asks for it (`run.trackers`). A new one is a class registered in TRACKERS.
"""

import importlib
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

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


def _needed(package: str, tracker: str, error: ImportError) -> ValueError:
    extra = "trackio" if tracker == "trackio" else "tracking"
    return ValueError(f'the tracker {tracker} needs {package}: pip install "mage-vision[{extra}]" ({error})')


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

    A run's identifier is kept in RUN/wandb.id or RUN/trackio.id, so that a resumed run goes on in the same place. Steps
    between the last checkpoint and the end of the run before are logged again, with the same numbers.
    """

    package: ClassVar[str]
    advice: ClassVar[str]
    """Where it cannot start."""

    def __init__(self, folder: Path, step: int, settings: Mapping[str, Any]) -> None:
        try:
            self._library: Any = importlib.import_module(self.package)
        except ImportError as error:
            raise _needed(self.package, self.package, error) from None
        kept = folder / f"{self.package}.id"
        identifier = kept.read_text(errors="replace").strip() if step and kept.is_file() else ""
        if not identifier.isalnum():
            identifier = uuid.uuid4().hex[:8]
        try:
            with redirect_stdout(sys.stderr):  # Trackio talks; standard output belongs to --json
                self._run = self._start(folder, identifier, dict(settings))
        except Exception as error:  # not logged in, no connection: each has exceptions of its own
            raise ValueError(
                f"the tracker {self.package} could not start ({type(error).__name__}: {error}); {self.advice}"
            ) from None
        atomic.write_text(kept, identifier + "\n")

    def _start(self, folder: Path, identifier: str, settings: dict[str, Any]) -> Any:
        raise NotImplementedError

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Nothing more comes."""
        with redirect_stdout(sys.stderr):
            self._library.finish()  # Trackio would close a run that closed itself once more at the end of Python


@TRACKERS.register("wandb")
class WeightsAndBiases(_Online):
    """Weights & Biases, project mage; WANDB_MODE=offline keeps everything below RUN/wandb."""

    package = "wandb"
    advice = "`wandb login` once, or set WANDB_MODE=offline"

    def _start(self, folder: Path, identifier: str, settings: dict[str, Any]) -> Any:
        return self._library.init(
            project="mage", name=folder.name, id=identifier, resume="allow", dir=str(folder), config=settings
        )


@TRACKERS.register("trackio")
class Trackio(_Online):
    """Trackio, project mage, which keeps its numbers on this machine: `trackio show --project mage`."""

    package = "trackio"
    advice = "it keeps its files in TRACKIO_DIR, which must be a folder that can be written"

    def _start(self, folder: Path, identifier: str, settings: dict[str, Any]) -> Any:
        # It finds a run again by its name alone, and run folders of different places share theirs.
        return self._library.init(project="mage", name=f"{folder.name}-{identifier}", resume="allow", config=settings)
