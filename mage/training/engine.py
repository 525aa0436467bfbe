"""The one training loop: runs any task, on accelerate, and can be stopped and resumed at any step.

Everything random in step s is seeded from (seed, s), so a resumed run repeats exactly what an uninterrupted one would
have done; a checkpoint holds weights, optimizers, averages and the step, no generator states.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm import tqdm

from mage import distributed, images, rng
from mage.nn.blocks import choose_attention
from mage.precision import resolve
from mage.training.checkpoint import drop_old_checkpoints, newest_checkpoint, read_checkpoint, write_checkpoint
from mage.training.interrupt import interrupt_flag
from mage.training.optim import WeightAverage, build_optimizer, learning_rate
from mage.training.run import Interrupted, NonFiniteLoss, RunConfig, TrainResult
from mage.training.runlog import RunLog
from mage.training.task import Task

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
    on_step: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train `task` in the run folder `folder`.

    settings: the recipe as plain values, kept in checkpoints; a run resumes only under the settings it began with.
    Raises Interrupted after Ctrl-C, NonFiniteLoss naming the last good checkpoint, ValueError for an unusable folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]), interrupt_flag() as interrupted:
        trainer = Trainer(task, folder, seed, settings, precision=precision, device=device, compiled=run.compile)
        if resume:
            trainer.restore(newest_checkpoint(folder))
            if trainer.step == task.steps:  # the process may have died between the last checkpoint and the model
                task.export(trainer.averaged(), folder / "model")
        elif newest_checkpoint(folder) is not None:
            raise ValueError(f"{folder} already holds a run; add --resume to go on with it, or choose another folder")
        with trainer.logging(run, progress):
            while trainer.step < task.steps:
                trainer.train_step()
                if on_step is not None:
                    on_step(trainer.step)
                last = trainer.step == task.steps
                if trainer.step % run.log_every == 0 or last:
                    trainer.flush_log()
                if trainer.step % run.observe_every == 0 or last:
                    trainer.observe()
                if trainer.step % run.checkpoint_every == 0 or last or interrupted.is_set():
                    trainer.save(run.keep_checkpoints)
                if interrupted.is_set() and not last:
                    raise Interrupted(f"stopped after step {trainer.step} of {task.steps}, which is saved in {folder}")
        return TrainResult(trainer.step, trainer.seconds, trainer.observed, warnings=tuple(trainer.warned.values()))


def compile_repeated(module: nn.Module) -> None:
    """Compile each member of every list of blocks, in place: equal blocks share the compiled code."""
    for blocks in [layer for layer in module.modules() if isinstance(layer, nn.ModuleList)]:
        for block in blocks:
            block.compile()


class Trainer:
    """One run in progress. `train` is the way to run a task; benchmarks drive the steps themselves."""

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
    ) -> None:
        self.task, self.folder, self.seed, self.settings = task, folder, seed, settings
        mixed = "bf16" if resolve(precision, device) == "bf16" else "no"
        AcceleratorState._reset_state()  # else an earlier run of this process would forbid another precision
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=device.type == "cpu")
        self.modules: dict[str, nn.Module] = {}
        self.optimizers: dict[str, Any] = {}
        self.averages: dict[str, WeightAverage] = {}
        for name, module in task.modules.items():
            module.to(self.accelerator.device).train().requires_grad_(True)
            for part in task.frozen:
                part.requires_grad_(False)
            choose_attention(module, self.accelerator.device)
            if task.optim[name].ema_decay:
                self.averages[name] = WeightAverage(module, task.optim[name].ema_decay)
            optimizer = build_optimizer(module, task.optim[name])
            if compiled:
                compile_repeated(module)
            self.modules[name], self.optimizers[name] = self.accelerator.prepare(module, optimizer)
        self.step, self.seconds = 0, 0.0
        self.observed: dict[str, float] = {}
        self.warned: dict[str, str] = {}
        self.window: dict[str, Tensor] = {}
        self.window_steps = 0
        self.finite = torch.ones((), dtype=torch.bool, device=self.accelerator.device)

    @contextmanager
    def logging(self, run: RunConfig, progress: bool) -> Iterator[None]:
        """Open the diary and the progress bar."""
        main = self.accelerator.is_main_process
        self.data = self.task.batches(
            self.step * self._accumulation, rank=self.accelerator.process_index, world_size=self._world_size
        )
        self.log = RunLog(self.folder, step=self.step) if main else None
        self.bar = tqdm(
            total=self.task.steps, initial=self.step, unit="step", disable=None if progress and main else True
        )
        self.clock, self.clock_step = time.perf_counter(), self.step
        try:
            yield
        finally:
            self.bar.close()
            if self.log is not None:
                self.log.close()

    @property
    def _accumulation(self) -> int:
        return max(optim.accumulation for optim in self.task.optim.values())

    @property
    def _world_size(self) -> int:
        return int(self.accelerator.num_processes)

    def train_step(self) -> None:
        """One optimizer step of each module, over all accumulated parts of the batch."""
        for part in range(self._accumulation):
            number = self.step * self._accumulation + part
            # Dropout draws from the global generators: give each part its own, known, place in the sequence.
            torch.manual_seed(rng.stream_seed(self.seed, "step", number, self.accelerator.process_index))
            batch = {
                name: value.to(self.accelerator.device, non_blocking=True) for name, value in next(self.data).items()
            }
            rank = self.accelerator.process_index
            last = part == self._accumulation - 1
            for loss in self.task.losses(self.modules, batch, number=number, rank=rank):
                module = self.modules[loss.module]
                # Processes exchange gradients once per step, with the last part.
                with nullcontext() if last else self.accelerator.no_sync(module):
                    self.accelerator.backward(loss.value / self._accumulation)
                self._note(loss.metrics | {_name(loss.module, self.modules): loss.value}, part)
                if last:
                    self._update(loss.module)
        self.step += 1
        self.window_steps += 1
        self.bar.update()

    def _update(self, name: str) -> None:
        config, optimizer = self.task.optim[name], self.optimizers[name]
        if config.clip:
            norm = self.accelerator.clip_grad_norm_(self.modules[name].parameters(), config.clip)
            self._note({_name(name, self.modules, "grad_norm"): norm}, 0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step, self.task.steps) * group.get("lr_scale", 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if name in self.averages:
            self.averages[name].update_parameters(self.accelerator.unwrap_model(self.modules[name]))

    def _note(self, metrics: dict[str, Tensor], part: int) -> None:
        """Sum metrics on the device; nothing is read back until the log is written."""
        weight = 1.0 if "grad_norm" in next(iter(metrics)) else 1 / self._accumulation
        for name, value in metrics.items():
            value = value.detach().float() * weight
            self.finite &= value.isfinite()
            self.window[name] = self.window[name] + value if name in self.window else value

    def flush_log(self) -> None:
        """Write the means since the last line, and check that they are finite."""
        self.check_finite()
        now = time.perf_counter()
        self.seconds += now - self.clock
        pace = (self.step - self.clock_step) * self.task.batch_size / max(1e-9, now - self.clock)
        self.clock, self.clock_step = now, self.step
        values = {name: float(total) / self.window_steps for name, total in self.window.items()}
        for name, config in self.task.optim.items():
            values[_name(name, self.modules, "lr")] = learning_rate(config, self.step - 1, self.task.steps)
        if self.log is not None:
            self.log.write(self.step, {**values, "images_per_second": pace, "seconds": self.seconds})
        self.bar.set_postfix_str(
            f"{pace:.0f} images/s, loss {values[_name(next(iter(self.modules)), self.modules)]:.4f}"
        )
        self.window, self.window_steps = {}, 0
        self._warn(values)

    def _warn(self, metrics: dict[str, float]) -> None:
        """Log what the task finds wrong with some metrics, each kind once."""
        found = {_kind(text): text for text in self.task.warnings(metrics)}
        for kind in found.keys() - self.warned.keys():
            logger.warning("step %d: %s", self.step, found[kind])
        self.warned |= found

    def check_finite(self) -> None:
        """Raise NonFiniteLoss if any metric since the last check was NaN or infinite."""
        if not bool(self.finite):
            good = newest_checkpoint(self.folder)
            where = f"the last good checkpoint is {good}" if good else "no checkpoint had been written yet"
            raise NonFiniteLoss(
                f"the loss is not finite near step {self.step}; {where}; "
                "try a lower base_learning_rate, a longer warmup or --precision float32"
            )

    def averaged(self) -> dict[str, nn.Module]:
        """The weights to look at and to keep: moving averages where there are some."""
        return {
            name: self.averages[name].module if name in self.averages else self.accelerator.unwrap_model(module)
            for name, module in self.modules.items()
        }

    def observe(self) -> None:
        """Validate, draw a sample grid, and log both; every process learns the numbers."""
        if self.accelerator.is_main_process:
            self._observe()
        self.observed = distributed.value_from_first_process(self.observed)

    def _observe(self) -> None:
        modules = self.averaged()
        for module in modules.values():
            module.eval()
        with torch.inference_mode(), self.accelerator.autocast():
            observation = self.task.observe(modules, pictures=True)
        for module in self.modules.values():
            module.train()
        self.observed = observation.metrics
        assert self.log is not None
        self.log.write(self.step, observation.metrics)
        self._warn(observation.metrics)
        if observation.image is not None:
            images.save_png(self.folder / "samples" / f"step-{self.step:07d}.png", observation.image)

    def save(self, keep: int) -> None:
        """Write a checkpoint and the model folder; remove the oldest checkpoints."""
        self.check_finite()
        self.seconds += time.perf_counter() - self.clock
        self.clock = time.perf_counter()
        if not self.accelerator.is_main_process:
            return
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "settings": self.settings,
            "modules": {n: self.accelerator.unwrap_model(m).state_dict() for n, m in self.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "averages": {name: average.state_dict() for name, average in self.averages.items()},
            "window": self.window,
            "window_steps": self.window_steps,
            "observed": self.observed,
        }
        write_checkpoint(state, self.folder, self.step)
        self.task.export(self.averaged(), self.folder / "model")
        drop_old_checkpoints(self.folder, keep)

    def restore(self, path: Path | None) -> None:
        """Continue from a checkpoint."""
        if path is None:
            raise ValueError(f"{self.folder} holds no checkpoint to resume from; start the run without --resume")
        state = read_checkpoint(path, self.settings, self.accelerator.device)
        for name, module in self.modules.items():
            self.accelerator.unwrap_model(module).load_state_dict(state["modules"][name])
            self.optimizers[name].load_state_dict(state["optimizers"][name])
            if name in self.averages:
                self.averages[name].load_state_dict(state["averages"][name])
        self.step, self.seconds, self.observed = state["step"], state["seconds"], state["observed"]
        self.window, self.window_steps = state["window"], state["window_steps"]


def _name(module: str, modules: dict[str, nn.Module], metric: str = "loss") -> str:
    """Metrics are named plainly where only one module is trained."""
    return metric if len(modules) == 1 else f"{module}/{metric}"


def _kind(warning: str) -> str:
    """A warning without its numbers."""
    return re.sub(r"[\d.]+(e[+-]?\d+)?%?", "", warning)
