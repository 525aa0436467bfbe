"""Settings of a run that do not change what is learned: folder, device, precision, workers, progress."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mage import atomic, distributed, locks
from mage import device as device_policy
from mage.data.datasets import ImageDataset
from mage.nn.grids import written
from mage.recipes.finetune import FinetuneRecipe
from mage.recipes.schema import Recipe, to_yaml
from mage.runs.facts import recorded_precision, write_facts
from mage.training.checkpoint import newest_checkpoint
from mage.training.engine import train
from mage.training.optim import OptimConfig
from mage.training.run import Interrupted, TrainResult
from mage.training.task import Task
from mage.training.tokenizer import TokenizerTraining

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launch:
    """Output folder, hardware and display of a run."""

    out: Path
    """Run folder."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: str = "auto"
    """auto, float32, bf16."""
    resume: bool = False
    """Resume the run in `out`."""
    workers: int = 0
    """Processes that read and augment images; 0: the main one."""
    progress: bool = True
    """Show progress: a bar on a terminal, a line every minute elsewhere."""
    data_root: str | None = None
    """Folder with the files of a named data set."""
    deterministic: bool = False
    """Compute so that a run repeated on the same device gives the same bits; on a GPU it takes longer."""

    def start(self) -> torch.device:
        """The device of this process; joins the process group of a launcher."""
        return device_policy.start(self.device)

    def resolved_precision(self) -> str:
        """float32 or bf16, on this launch's device; a resumed run keeps its own unless another one is asked for."""
        begun = recorded_precision(self.out) if self.resume else None
        return device_policy.resolve(begun or "auto" if self.precision == "auto" else self.precision, self.start())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Context in which this run alone writes into `out`; all its processes enter it.

        Raises ValueError, naming the other one, while another run does.
        """
        with contextlib.ExitStack() as stack:
            distributed.by_first_process(lambda: stack.enter_context(locks.run_lock(self.out)))
            yield

    def numerics(self) -> contextlib.AbstractContextManager[None]:
        """The context in which this launch computes."""
        return device_policy.repeatable() if self.deterministic else contextlib.nullcontext()

    def inside(self, name: str) -> "Launch":
        """The same launch with a subfolder as its folder; resumes if the subfolder holds a run."""
        out = self.out / name
        return replace(self, out=out, resume=newest_checkpoint(out) is not None)

    def check_out(self) -> None:
        """Raise ValueError for an unsuitable run folder, before anything is loaded or written."""
        if self.resume and newest_checkpoint(self.out) is None:
            raise ValueError(f"{self.out} holds no checkpoint to resume from; start the run without --resume")
        if not self.resume and newest_checkpoint(self.out) is not None:
            raise ValueError(f"{self.out} already holds a run; add --resume to continue it, or choose another folder")
        if self.out.is_file():
            raise ValueError(f"{self.out} is a file; --out takes a folder")
        if device_policy.is_first_launched():  # when the others come here, it may hold the lock already, for all
            locks.check_free(self.out)


def run_task(
    task: Task,
    recipe: Recipe | FinetuneRecipe,
    launch: Launch,
    learned: Mapping[str, Any],
    dataset: ImageDataset | None,
) -> TrainResult:
    """Train in the run folder, and write the recipe into it.

    learned: the settings that determine what is learned; dataset: its unreadable files are reported. Raises ValueError
    while another process trains there.
    """
    device = launch.start()
    with launch.locked():
        if task.accumulation > 1 and task.of_parts and distributed.is_first():
            logger.warning("batches are computed in %d parts, and %s", task.accumulation, task.of_parts)
        result = _run_task(task, recipe, launch, learned, dataset, device)
    return replace(result, skipped=tuple(dataset.skipped)) if dataset is not None else result


def _run_task(
    task: Task,
    recipe: Recipe | FinetuneRecipe,
    launch: Launch,
    learned: Mapping[str, Any],
    dataset: ImageDataset | None,
    device: torch.device,
) -> TrainResult:
    if not launch.resume and distributed.is_first():
        _write_recipe(recipe, launch.out)
        kept = {
            id(weight)
            for part in task.frozen
            for weight in (part.parameters() if isinstance(part, nn.Module) else (part,))
        }
        modules = task.modules.values()
        weights = [weight for module in modules for weight in module.parameters() if id(weight) not in kept]
        write_facts(
            launch.out,
            kind=_kind(task, recipe),
            device=str(device),
            precision=launch.resolved_precision(),
            parameters=sum(weight.numel() for weight in weights),
            dataset=dataset,
        )
    if launch.resume and distributed.is_first():
        begun, now = recorded_precision(launch.out), launch.resolved_precision()
        if begun not in (None, now):
            logger.warning("the run in %s began in %s and goes on in %s", launch.out, begun, now)
    with launch.numerics():
        try:
            result = train(
                task,
                recipe.run,
                launch.out,
                seed=recipe.seed,
                settings=dict(learned),
                resume=launch.resume,
                precision=launch.resolved_precision(),
                device=device,
                progress=launch.progress,
            )
        except Interrupted:
            _keep_up(recipe, launch)
            raise
    _keep_up(recipe, launch)
    return result


def _keep_up(recipe: Recipe | FinetuneRecipe, launch: Launch) -> None:
    """Write the recipe of a run that was resumed, since it may be longer now."""
    if launch.resume and distributed.is_first():
        _write_recipe(recipe, launch.out)


def _write_recipe(recipe: Recipe | FinetuneRecipe, out: Path) -> None:
    atomic.write_text(out / "recipe.yaml", to_yaml(recipe))


def _kind(task: Task, recipe: Recipe | FinetuneRecipe) -> str:
    if isinstance(recipe, FinetuneRecipe):
        return "classifier"
    return "tokenizer" if isinstance(task, TokenizerTraining) else "mage"


def announce(
    activity: str,
    recipe: Recipe | FinetuneRecipe,
    launch: Launch,
    optim: OptimConfig,
    num_images: int,
    grid: Sequence[int] = (),
) -> None:
    """Log steps, tokens, device and precision of a training run.

    activity: such as "pre-training"; grid: of an image's tokens.
    """
    if not distributed.is_first():
        return
    steps, device = optim.num_steps(num_images), launch.start()
    processes = f", {distributed.world_size()} processes" if distributed.world_size() > 1 else ""
    passes = steps * optim.batch_size / max(1, num_images)
    tokens = f", {written(grid)} tokens an image" if grid else ""
    logger.info(
        "%s by recipe %s: %s steps of %s images (%.3g passes over the data)%s, %s on %s%s",
        activity,
        recipe.name,
        f"{steps:,}",
        f"{optim.batch_size:,}",
        passes,
        tokens,
        launch.resolved_precision(),
        device,
        processes,
    )
