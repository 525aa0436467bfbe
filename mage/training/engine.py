"""The training loop: runs any task, on PyTorch's DDP or FSDP2, and can be stopped and resumed at any step.

Everything random in step s is seeded from (seed, s), so that a resumed run is identical to an uninterrupted one; a
checkpoint holds weights, optimizers, averages and the step, but no generator states. With several processes, each works
on its share of every batch (`mage.share`), and gradients are averaged once a step.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mage import distributed, images, rng
from mage.device import autocast, exact, resolve
from mage.share import Share, Turn
from mage.training.checkpoint import (
    check_resumed,
    drop_old_checkpoints,
    intact_checkpoint,
    last_good,
    newest_checkpoint,
    not_finite,
    read_checkpoint,
    write_checkpoint,
)
from mage.training.compiling import compiles
from mage.training.interrupt import interrupt_flag
from mage.training.networks import Networks
from mage.training.optim import learning_rate
from mage.training.progress import Progress
from mage.training.run import Interrupted, NonFiniteLoss, RunConfig, Strategy, TrainResult
from mage.training.runlog import RunLog, seconds_until
from mage.training.sharded import ShardedWriter, read_numbers, read_sharded
from mage.training.sharding import clip_gradients, gather
from mage.training.task import Reading, Task
from mage.training.transfer import on_device
from mage.training.window import Window
from mage.training.wrap import no_exchange, training_mode

logger = logging.getLogger(__name__)


def train(
    task: Task,
    run: RunConfig,
    folder: Path,
    *,
    seed: int,
    settings: dict[str, Any],
    resume: bool = False,
    precision: str = "auto",
    device: torch.device,
    progress: bool = True,
) -> TrainResult:
    """Train `task` in the run folder `folder`.

    settings: all that determine what is learned, as plain values, stored in checkpoints. A run resumes only with the
    settings it started with, except that it may become longer: its learning rate then follows the longer schedule.
    Raises Interrupted after Ctrl-C or SIGTERM, NonFiniteLoss naming the last good checkpoint, ValueError for a folder
    that cannot be used.
    """
    bounded = distributed.within(run.timeout, lambda: last_good(folder))
    with bounded, torch.random.fork_rng(devices=[]), interrupt_flag() as interrupted:
        distributed.by_first_process(lambda: folder.mkdir(parents=True, exist_ok=True))
        compiled = compiles(run.compile, task, device)
        trainer = Trainer(
            task, folder, seed, settings, precision=precision, device=device, compiled=compiled, strategy=run.strategy
        )
        if resume:
            trainer.restore(distributed.by_first_process(lambda: intact_checkpoint(folder)))
            if trainer.step == task.steps:  # the process may have died between the last checkpoint and the model
                trainer.publish(run.keep_checkpoints)
        elif newest_checkpoint(folder) is not None:
            raise ValueError(f"{folder} already holds a run; add --resume to continue it, or choose another folder")
        with trainer.logging(run, progress):
            while trainer.step < task.steps:
                trainer.train_step()
                last = trainer.step == task.steps
                stop = interrupted.is_set_anywhere() and not last
                if trainer.step % run.log_every == 0 or last:
                    trainer.flush_log()
                if trainer.step % run.observe_every == 0 or last:
                    trainer.observe()
                if trainer.step % run.checkpoint_every == 0 or last or stop:
                    trainer.save(run)
                if last or stop:
                    trainer.finish_saving()
                if stop:
                    sentence = f"stopped after step {trainer.step} of {task.steps}, which is saved in {folder}"
                    raise Interrupted(sentence, interrupted.signal or 15)
        return TrainResult(trainer.step, trainer.seconds, trainer.observed, warnings=tuple(trainer.warned.values()))


class Trainer:
    """A run in progress. Use `train` to run a task; benchmarks call the steps themselves."""

    def __init__(
        self,
        task: Task,
        folder: Path,
        seed: int,
        settings: dict[str, Any],
        *,
        precision: str,
        device: torch.device,
        compiled: bool = False,
        strategy: Strategy = "ddp",
    ) -> None:
        self.task, self.folder, self.seed, self.settings = task, folder, seed, settings
        self.device, self.precision = device, resolve(precision, device)
        self.share = Share(task.batch_size, task.accumulation, distributed.rank(), distributed.world_size())
        self.networks = Networks(task, device, precision=self.precision, compiled=compiled, strategy=strategy)
        self.modules, self.optimizers = self.networks.wrapped, self.networks.optimizers
        training_mode(self.task.modules, self.task.frozen)
        self.step, self.seconds = 0, 0.0
        self.observed: dict[str, float] = {}
        self.warned: dict[str, Any] = {}
        self.window = Window(device)
        self.sharded: ShardedWriter | None = None

    @contextmanager
    def logging(self, run: RunConfig, progress: bool) -> Iterator[None]:
        """Open the log and the progress bar."""
        first = distributed.is_first()
        self.data = on_device(self.task.batches(self.step, self.share), self.device)
        self.log: RunLog | None = None
        if first:
            self.log = RunLog(self.folder, step=self.step, trackers=run.trackers, settings=self.settings)
        self.progress = Progress(self.task.steps, self.step, self.task.batch_size, shown=progress and first)
        self.clock, self.told = time.perf_counter(), (self.step, self.seconds)
        try:
            yield
        finally:
            self.progress.close()
            if self.log is not None:
                self.log.close()

    def train_step(self) -> None:
        """One optimizer step of each module, over all accumulated parts of the batch."""
        parts = self.share.parts
        for part in range(parts):
            last = part == parts - 1
            # Dropout draws from the global generators: seed them for each part.
            torch.manual_seed(rng.stream_seed(self.seed, "step", self.step * parts + part, self.share.rank))
            # Gradients are exchanged with the last part; no_exchange must contain both passes of the others.
            with nullcontext() if last else no_exchange(self.modules), exact(self.precision, self.device):
                for loss in self.task.losses(self.modules, next(self.data), Turn(self.step, part, self.share)):
                    (loss.value / parts).backward()
                    name = _name(loss.module, self.modules)
                    self.window.add({**loss.readings, name: Reading(loss.value)}, 1 / parts)
                    if last:
                        self._update(loss.module)
        self.step += 1
        if self.sharded is not None:
            self.sharded.publish()
        self.window.steps += 1
        self.progress.step(lambda: self.window.mean(self._main_loss))

    def _update(self, name: str) -> None:
        config, optimizer, module = self.task.optim[name], self.optimizers[name], self.task.modules[name]
        if config.clip:
            norm = clip_gradients(module, config.clip)
            self.window.add({_name(name, self.modules, "grad_norm"): Reading(norm)})
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step, self.task.steps) * group.get("lr_scale", 1.0)
        optimizer.step()
        optimizer.zero_grad()
        self.task.after_update(name, self.step)
        if name in self.networks.averages:
            self.networks.averages[name].update_parameters(module)

    def flush_log(self) -> None:
        """Write the means since the last line, and check that they are finite."""
        self.check_finite()
        now = time.perf_counter()
        self.seconds += now - self.clock
        steps, seconds = self.step - self.told[0], self.seconds - self.told[1]
        pace = steps * self.task.batch_size / max(1e-9, seconds)
        self.clock, self.told = now, (self.step, self.seconds)
        values = self.window.read()
        for name, config in self.task.optim.items():
            values[_name(name, self.modules, "lr")] = learning_rate(config, self.step - 1, self.task.steps)
        if self.log is not None:
            self.log.write(self.step, {**values, "images_per_second": pace, "seconds": self.seconds})
        self.progress.show(f"{pace:.0f} images/s, loss {values[self._main_loss]:.4f}")
        self._warn(values)

    @property
    def _main_loss(self) -> str:
        """The loss that is shown: of the first module."""
        return _name(next(iter(self.modules)), self.modules)

    def _warn(self, metrics: dict[str, float]) -> None:
        """Log the task's warnings about these metrics, each kind once."""
        for warning in self.task.warnings(metrics):
            if warning.kind not in self.warned and distributed.is_first():
                logger.warning("step %d: %s", self.step, warning.sentence)
            self.warned[warning.kind] = warning

    def check_finite(self, wrong: Sequence[str] = ()) -> None:
        """Raise NonFiniteLoss in all processes if a metric since the last check is not finite, or a weight: `wrong`."""
        if distributed.any_process(bool(wrong)) or not self.window.is_finite():
            raise NonFiniteLoss(
                f"the loss or a weight is not finite near step {self.step}; {last_good(self.folder)}; "
                "try a lower base_learning_rate, a longer warmup or --precision float32"
            )

    def observe(self) -> None:
        """Validate, draw a sample grid, and log both; every process receives the metrics."""
        modules = self.networks.averaged()
        self.observed = distributed.by_first_process(lambda: self._observe(modules))
        self.networks.put_away()
        self._warn(self.observed)

    def _observe(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        for module in modules.values():
            module.eval()
        with torch.inference_mode(), autocast(self.precision, self.device):
            observation = self.task.observe(modules)
        training_mode(self.task.modules, self.task.frozen)
        assert self.log is not None
        self.log.write(self.step, observation.metrics)
        if observation.image is not None:
            images.save_png(self.folder / "samples" / f"step-{self.step:07d}.png", observation.image)
        return observation.metrics

    def publish(self, keep: int) -> None:
        """Write the model folder, for which all processes wait, and remove the oldest checkpoints."""
        modules = self.networks.averaged()

        def write() -> None:
            self.task.export(modules, self.folder / "model")
            drop_old_checkpoints(self.folder, keep)

        distributed.by_first_process(write)
        self.networks.put_away()

    def save(self, run: RunConfig) -> None:
        """Write a checkpoint and the model folder; remove the oldest checkpoints."""
        self.check_finite(not_finite(self.task.modules))  # one step's gradients may spoil weights after a finite loss
        self.seconds += time.perf_counter() - self.clock
        self.clock = time.perf_counter()
        if run.checkpoints == "sharded":
            self.sharded = self.sharded or ShardedWriter(self.folder)
            self.sharded.begin(self._state(), self.step, run.keep_checkpoints)
        else:
            state = gather(self._state())
            distributed.by_first_process(lambda: write_checkpoint(state, self.folder, self.step))
        self.publish(run.keep_checkpoints)

    def finish_saving(self) -> None:
        """Wait until the last checkpoint is on disk."""
        if self.sharded is not None:
            self.sharded.finish()

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "steps": self.task.steps,
            "settings": self.settings,
            **self.networks.state(),
            "window": self.window.state(),
            "observed": self.observed,
            "task": self.task.state(),
        }

    def restore(self, path: Path | None) -> None:
        """Continue from a checkpoint. Raises ValueError if it was written with settings that learn something else."""
        if path is None:
            raise ValueError(f"{self.folder} holds no checkpoint to resume from; start the run without --resume")
        now = self.networks.state() | {"parameters": self.networks.parameters()}
        state = read_numbers(path) if path.is_dir() else read_checkpoint(path)
        free = () if self.task.of_parts else ("accumulation",)  # parts of a batch that give what the batch gives
        check_resumed(state, self.folder, self.settings, self.task.steps, free=free)
        if path.is_dir():
            state = read_sharded(path, now)
        self.networks.restore(state)
        self.step, self.observed = state["step"], state["observed"]
        self.seconds = seconds_until(self.folder, self.step)  # the log's: a checkpoint depends on no clock
        if "means" in state["window"]:  # checkpoints of 0.1 held the sums alone
            self.window.restore(state["window"])
        self.task.restore(state.get("task", {}))


def _name(module: str, modules: dict[str, nn.Module], metric: str = "loss") -> str:
    """Name of a metric, prefixed by the module if several are trained."""
    return metric if len(modules) == 1 else f"{module}/{metric}"
