"""Speed of attention kernels and of torch.compile: `python studies/kernels.py`, on an idle machine.

Attention: softmax(q k) v written out against PyTorch's fused kernel, for widths, lengths and precisions of this
library, forward only and with backward, in turns in one process. Compilation: one training step of transformer blocks
with and without, and the seconds of the first step. Results are written to results/kernels.json.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from choices import RESULTS, stated
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from mage import rng
from mage.benchmarks.measure import take_turns
from mage.device import autocast, resolve, resolve_device
from mage.nn.blocks import transformer_blocks
from mage.runs.record import Record, write_record
from mage.training.compiling import compile_module

SHAPES = ((192, 3, 64, 128), (768, 12, 256, 4), (768, 12, 1024, 1))
"""Width, heads, tokens, images."""
DEPTH = 4


def blocks(width: int, heads: int, device: torch.device, *, fused: bool) -> nn.Sequential:
    """DEPTH transformer blocks with fused or written-out attention."""
    torch.manual_seed(0)
    network = nn.Sequential(*transformer_blocks(DEPTH, width, heads, mlp_ratio=4.0, dropout=0.0)).to(device)
    for layer in network.modules():
        if isinstance(layer, Attention):
            layer.fused_attn = fused  # type: ignore[misc]  # final for TorchScript's sake
    return network


def forward(network: nn.Module, x: Tensor, precision: str) -> Callable[[], object]:
    """A function for a forward pass without gradients."""

    @torch.inference_mode()
    def run() -> object:
        with autocast(precision, x.device):
            return network(x)

    return run


def step(network: nn.Module, x: Tensor, precision: str) -> Callable[[], object]:
    """A function for a forward and backward pass."""

    def run() -> object:
        with autocast(precision, x.device):
            loss = network(x).float().square().mean()
        loss.backward()
        network.zero_grad()
        return loss

    return run


def attention(device: torch.device, precisions: list[str], rounds: int) -> dict[str, float]:
    """Seconds of the fused kernel over seconds written out: above 1, writing it out is faster."""
    ratios = {}
    for width, heads, length, count in SHAPES:
        x = torch.randn(count, length, width, generator=rng.generator(0)).to(device)
        ways = {fused: blocks(width, heads, device, fused=fused) for fused in (False, True)}
        for precision in precisions:
            for name, make in (("forward", forward), ("step", step)):
                timings = take_turns(
                    {str(fused): make(network, x, precision) for fused, network in ways.items()},
                    rounds=rounds,
                    device=device,
                )
                ratio = timings["True"].median / timings["False"].median
                ratios[f"fused_over_written_{name}_d{width}_{length}tokens_{precision}"] = ratio
                print(f"d{width} {length} tokens {precision} {name}: fused takes {ratio:.2f} x the time", flush=True)
    return ratios


def compilation(device: torch.device, precision: str, rounds: int) -> dict[str, float]:
    """Seconds of a step without compilation over seconds with it, and seconds of the first compiled step."""
    metrics = {}
    for width, heads, length, count in SHAPES[:2]:
        x = torch.randn(count, length, width, generator=rng.generator(0)).to(device)
        plain, compiled = (blocks(width, heads, device, fused=device.type != "cpu") for _ in range(2))  # as trained
        compile_module(nn.ModuleList([nn.ModuleList(compiled)]), whole=False)
        start = time.perf_counter()
        step(compiled, x, precision)()
        metrics[f"compile_first_step_seconds_d{width}_{length}tokens"] = time.perf_counter() - start
        ways = {"plain": step(plain, x, precision), "compiled": step(compiled, x, precision)}
        timings = take_turns(ways, rounds=rounds, device=device)
        ratio = timings["plain"].median / timings["compiled"].median
        metrics[f"compile_speedup_step_d{width}_{length}tokens"] = ratio
        print(f"d{width} {length} tokens: a compiled step is {ratio:.2f} x as fast", flush=True)
    return metrics


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each way, of which the median counts")
    parser.add_argument("--no-compile", action="store_true", help="leave compilation out, where there is no compiler")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    device = resolve_device(options.device)
    best = resolve("auto", device)
    start = time.perf_counter()
    metrics = attention(device, sorted({"float32", best}), options.rounds)
    if not options.no_compile:
        metrics |= compilation(device, best, options.rounds)
    protocol = {
        "blocks": f"{DEPTH} pre-norm transformer blocks; width, tokens and precision are in the names",
        "ratio": "medians, taking turns in one process",
        "step": "forward and backward",
    }
    seconds = {"total": time.perf_counter() - start}
    command = f"python studies/kernels.py{stated(parser, options, 'device', 'rounds', 'no_compile')}"
    write_record(options.results / "kernels.json", Record(command, 0, protocol, seconds, metrics))


if __name__ == "__main__":
    main()
