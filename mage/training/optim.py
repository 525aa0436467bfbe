"""Optimizer and learning rate: AdamW or Muon, linear warm-up, cosine to the end (docs/method.md, Optimisation)."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from mage.training.muon import Muon, muon_groups
from mage.training.sharding import local


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer, learning rate and length of a training; the defaults are the paper's pre-training."""

    batch_size: int = 4096
    """Images per step, over all processes and accumulated parts."""
    accumulation: int = 1
    """Parts of a step's batch that are processed one after the other, to save memory."""
    steps: int = 0
    """Length of the training in steps; 0 means `epochs` decides."""
    epochs: float = 1600.0
    """Length of the training in passes over the data, used when `steps` is 0."""
    base_learning_rate: float = 1.5e-4
    """Peak learning rate for a batch of 256; scaled in proportion to the batch."""
    end_learning_rate: float = 0.0
    """Learning rate at the end, as a share of the peak."""
    warmup: float = 40 / 1600
    """Share of the training in which the learning rate rises from 0."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw: the paper's. muon: for short runs; weight matrices move by their orthogonalised momentum."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates."""
    weight_decay: float = 0.05
    """Weight decay, not applied to biases and norms."""
    clip: float = 3.0
    """Largest norm of the gradient; 0 switches clipping off."""
    ema_decay: float = 0.9999
    """Decay of the weights' moving average, which is saved and sampled from; 0 switches it off."""
    layer_decay: float = 1.0
    """Learning rate of each layer relative to the layer above; fine-tuning takes 0.65 (ViT-B) to 0.75 (ViT-L)."""

    def __post_init__(self) -> None:
        if min(self.batch_size, self.accumulation) < 1 or self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of accumulation {self.accumulation}")
        if self.steps < 0 or (self.steps == 0 and self.epochs <= 0):
            raise ValueError(f"training needs positive steps or epochs, not {self.steps} and {self.epochs}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), not {self.ema_decay}")
        if min(self.clip, self.weight_decay) < 0:
            raise ValueError(f"clip and weight_decay must be 0 or more, not {self.clip} and {self.weight_decay}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is a share of the training, from 0 to 1, not {self.warmup}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must lie in (0, 1], not {self.layer_decay}")
        if self.layer_decay < 1 and self.optimizer == "muon":
            raise ValueError(
                "layer_decay needs the optimizer adamw, not muon: set layer_decay to 1 or change the optimizer"
            )

    def num_steps(self, num_images: int) -> int:
        """Total number of steps on a data set of `num_images`."""
        return self.steps or max(1, round(self.epochs * num_images / self.batch_size))

    @property
    def peak_learning_rate(self) -> float:
        """base x batch / 256."""
        return self.base_learning_rate * self.batch_size / 256


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Learning rate of step `step` (from 0) of `steps`."""
    warmup = config.warmup * steps
    if step < warmup:
        return config.peak_learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    low = config.end_learning_rate
    return config.peak_learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))


def build_optimizer(module: nn.Module, config: OptimConfig, precision: str = "float32") -> torch.optim.AdamW:
    """The optimizer of the module's parameters; biases, norms and other vectors get no weight decay.

    precision: of the run; in bf16 Muon makes its matrices orthogonal in it, too.

    A group's `lr_scale` multiplies the learning rate: layer decay, for modules whose `group_matcher`, as in timm,
    assigns parameters to layers.
    """
    groups: Any
    if config.optimizer == "muon":
        dtype = torch.bfloat16 if precision == "bf16" else None
        groups = muon_groups(module, config.weight_decay)
        return Muon(groups, lr=config.peak_learning_rate, betas=config.betas, dtype=dtype)
    if config.layer_decay < 1:
        groups = param_groups_layer_decay(
            module,
            config.weight_decay,
            no_weight_decay_list=module.no_weight_decay(),  # type: ignore[operator]
            layer_decay=config.layer_decay,
        )
    else:
        groups = param_groups_weight_decay(module, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.peak_learning_rate, betas=config.betas, fused=True)


class WeightAverage(torch.optim.swa_utils.AveragedModel):
    """Moving average of weights with a decay that grows to `decay`, so that the initial weights lose influence soon.

    Buffers, such as a codebook of running means, are copied.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module)
        self.requires_grad_(False)
        self._decay = decay
        self._count: int | None = None
        """`n_averaged`, which is read from the device once, and again after it was loaded."""
        parameter = next(module.parameters(), None)
        self.n_averaged = self.n_averaged.to(None if parameter is None else parameter.device)

    def load_state_dict(self, *arguments: Any, **keywords: Any) -> Any:
        """As of any module."""
        self._count = None
        return super().load_state_dict(*arguments, **keywords)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """One step of the average; the first takes the weights as they are. Only that of a run reads the device."""
        count = int(self.n_averaged) if self._count is None else self._count
        share = 1 - min((1 + count) / (10 + count), self._decay) if count else 1.0
        averages: list[Any] = [local(parameter) for parameter in self.module.parameters()]
        currents: list[Any] = [local(parameter) for parameter in model.parameters()]
        torch._foreach_lerp_(averages, currents, share)  # one number for all: a few launches
        self._count = count + 1
        for average, current in zip(self.module.buffers(), model.buffers(), strict=True):
            average.copy_(current)
        self.n_averaged += 1
