"""Trackers that receive a run's metrics: TensorBoard, Weights & Biases, Trackio, or one of another package.

A tracker starts only if the recipe names it (`run.trackers`). A new one is a class registered in TRACKERS.
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
    """Receives the metrics of a run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the metrics of a step."""

    def close(self) -> None:
        """Finish logging."""


TrackerKind = Callable[[Path, int, Mapping[str, Any]], Tracker]
"""(run folder, step that the run resumes from, settings of the training) -> a tracker."""
TRACKERS: Registry[TrackerKind] = Registry(kind="tracker", group="mage.trackers")


def _needed(package: str, tracker: str, error: ImportError) -> ValueError:
    extra = "trackio" if tracker == "trackio" else "tracking"
    return ValueError(f'the tracker {tracker} needs {package}: pip install "mage-vision[{extra}]" ({error})')


@TRACKERS.register("tensorboard")
class TensorBoard:
    """Writes RUN/tensorboard; on resume, later steps of the previous session are hidden."""

    def __init__(self, folder: Path, step: int, settings: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _needed("tensorboard", "tensorboard", error) from None
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish logging."""
        self._writer.close()


class _Online:
    """Base class for Weights & Biases and Trackio, which have the same interface.

    A run's identifier is stored in RUN/wandb.id or RUN/trackio.id, so that a resumed run continues the same record.
    Steps after the last checkpoint of an interrupted session are logged again, with the same numbers.
    """

    package: ClassVar[str]
    advice: ClassVar[str]
    """Advice if it cannot start."""

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
            with redirect_stdout(sys.stderr):  # Trackio prints; standard output is for --json
                self._run = self._start(folder, identifier, dict(settings))
        except Exception as error:  # not logged in, no connection: each library has its own exceptions
            raise ValueError(
                f"the tracker {self.package} could not start ({type(error).__name__}: {error}); {self.advice}"
            ) from None
        atomic.write_text(kept, identifier + "\n")

    def _start(self, folder: Path, identifier: str, settings: dict[str, Any]) -> Any:
        raise NotImplementedError

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish logging."""
        with redirect_stdout(sys.stderr):
            self._library.finish()  # Trackio would close a finished run again at exit


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
        # It identifies a run by name only, and run folders in different places can have the same name.
        return self._library.init(project="mage", name=f"{folder.name}-{identifier}", resume="allow", config=settings)
