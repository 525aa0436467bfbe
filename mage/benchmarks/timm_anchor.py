"""timm's own ViT-B/16 on the same machine: an anchor that nobody here wrote, forward and training step.

It has a ViT-B's 12 blocks over 197 tokens of 16 x 16 pixels, so its share of the machine's ceiling is comparable with
that of our encoder. Compiled by `torch.compile` as well where that is what users run: on a GPU.
"""

from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor
from torch.nn import functional

from mage import rng
from mage.benchmarks.work import Bench, Work
from mage.training.compiling import missing_for_compiling

ANCHOR, SIDE, CLASSES = "vit_base_patch16_224", 224, 1000


def timm_anchor(bench: Bench) -> list[Work]:
    """Images to class scores, and a step of AdamW on them, in the precision of the bench."""
    device, precision = bench.device(), bench.model.precision
    shape = (bench.batch, 3, SIDE, SIDE)
    pixels = torch.rand(shape, generator=rng.generator(0, "anchor images")).to(device)
    labels = torch.randint(CLASSES, (bench.batch,), generator=rng.generator(0, "anchor labels")).to(device)

    def scores(network: Callable[[Tensor], Any]) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            result: Tensor = network(pixels)
        return result

    frozen, trained = (timm.create_model(ANCHOR).to(device) for _ in range(2))
    frozen.eval().requires_grad_(False)

    def forward(network: Callable[[Tensor], Any]) -> None:
        with torch.inference_mode():
            scores(network)

    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-4, fused=True)

    def step(network: Callable[[Tensor], Any]) -> None:
        functional.cross_entropy(scores(network).float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    ways = {
        "timm_forward": {"timm": lambda: forward(frozen)},
        "timm_step": {"timm": lambda: step(trained)},
    }
    if device.type == "cuda" and not missing_for_compiling(device):
        compiled, compiled_step = torch.compile(frozen), torch.compile(trained)
        ways["timm_forward"]["timm_compiled"] = lambda: forward(compiled)
        ways["timm_step"]["timm_compiled"] = lambda: step(compiled_step)
    return [Work(name, bench.batch, dict(each)) for name, each in ways.items()]
