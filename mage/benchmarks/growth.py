"""Cost as a function of the number of tokens: one decoding pass and one training step of the same network."""

import torch

from mage import rng
from mage.benchmarks import plain
from mage.benchmarks.pretrain import engine_step, plain_step, repeated, trainable
from mage.benchmarks.work import OURS, Bench, Work
from mage.models import MAGETransformer
from mage.nn.blocks import choose_attention
from mage.nn.grids import area
from mage.sampling.decode import UNKNOWN
from mage.sampling.generator import logits_function

GRIDS = ((8, 8), (16, 16), (32, 32))


def growth(bench: Bench) -> list[Work]:
    """64, 256 and 1,024 tokens; half of them known in the decoding pass."""
    return [work for grid in GRIDS for work in _at(bench, grid)]


def _at(bench: Bench, grid: tuple[int, int]) -> list[Work]:
    length, device = area(grid), bench.device()
    torch.manual_seed(0)
    built = bench.model.require_generator()
    network = MAGETransformer(built.config, built.vocabulary, grid)
    network = network.to(device).eval().requires_grad_(False)
    choose_attention(network, device)
    tokens = torch.randint(network.vocabulary.num_codes, (bench.batch, length), generator=rng.generator(0)).to(device)
    half = tokens.clone()
    half[:, ::2] = UNKNOWN
    places = torch.arange(0, length, 2, device=device).expand(bench.batch, -1)
    score = logits_function(network)

    @torch.inference_mode()
    def one_pass() -> object:
        with bench.model.autocast():
            return score(half, places, 1.0)

    @torch.inference_mode()
    def plain_pass() -> object:
        unknown = half == UNKNOWN
        return plain.logits(network, half, unknown, torch.zeros_like(unknown))

    step = engine_step(bench, trainable(network), repeated({"tokens": tokens}), bench.folder / f"growth{length}")
    plain_network = trainable(network)
    optimizer = plain.adamw(plain_network, 1e-4)

    def plain_training() -> None:
        plain_step(plain_network, optimizer, tokens)

    return [
        Work(f"pass_{length}_tokens", bench.batch, {OURS: one_pass, "plain": plain_pass}),
        Work(f"step_{length}_tokens", bench.batch, {OURS: step, "plain": plain_training}),
    ]
