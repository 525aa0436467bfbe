"""Counts how often two processes exchange gradients in three steps of four parts each: `exchanges.py OUT`."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from mage import distributed
from mage.data.token_cache import TokenCache
from mage.recipes import named
from mage.runs import Launch
from mage.runs.inputs import cached_batches
from mage.settings import override
from mage.training.engine import Trainer
from mage.training.method import MethodInputs
from mage.training.run import RunConfig
from mage.training.wrap import Wrapped


def main(out: Path, tokens: Path) -> None:
    """Train and write the numbers."""
    recipe = override(named("smoke"), ["pretraining.accumulation=4", "pretraining.steps=3"])
    device = Launch(out, device="cpu").start()
    cache, optim = TokenCache(tokens), recipe.pretraining
    inputs = MethodInputs(
        model=recipe.model, source=cached_batches(cache, optim, 0), num_images=len(cache), optim=optim, recipe={},
        seed=0, grid=tuple(cache.grid), num_codes=cache.num_codes,
    )  # fmt: skip
    trainer = Trainer(recipe.method.build(inputs), out, 0, {}, precision="float32", device=device)
    counted: list[int] = []

    def count(state: Any, bucket: torch.distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
        counted.append(bucket.index())
        return allreduce_hook(state, bucket)

    wrapped = trainer.modules["mage"]
    assert isinstance(wrapped, Wrapped)
    wrapped.module.register_comm_hook(None, count)  # type: ignore[operator]
    out.mkdir(parents=True, exist_ok=True)
    with trainer.logging(RunConfig(), progress=False):
        for _ in range(recipe.pretraining.steps):
            trainer.train_step()
    weights = torch.cat([parameter.flatten() for parameter in wrapped.parameters()])
    spread = distributed.largest_over_processes(weights.clone()) - weights
    numbers = {"exchanges_of_first_bucket": counted.count(0), "largest_difference": float(spread.abs().max())}
    (out / f"rank{distributed.rank()}.json").write_text(json.dumps(numbers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
