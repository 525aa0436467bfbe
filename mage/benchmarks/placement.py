"""A step of pre-training on a token cache that is read on the device, and on one that is read on the host."""

from collections.abc import Callable, Iterator

from mage.benchmarks.pretrain import engine_step, trainable
from mage.benchmarks.work import OURS, Bench, Work
from mage.data.batches import Batch
from mage.data.device_tokens import Place
from mage.data.own_tokens import write_tokens
from mage.data.token_batches import token_batches
from mage.share import Share

IMAGES = 4096
"""Of the cache, at least: 2 MB at 256 tokens."""


def placement(bench: Bench) -> list[Work]:
    """The same steps; "ours": tokens in the device's memory, "host": in the cache's files."""
    model = bench.model.require_generator()
    tokens = bench.tokens().cpu().repeat(-(-IMAGES // bench.batch), 1).view(-1, *model.grid)
    cache = write_tokens(bench.folder / "tokens", tokens, num_codes=model.vocabulary.num_codes)

    def step(place: Place) -> Callable[[], object]:
        def batches(start: int, share: Share) -> Iterator[Batch]:
            return token_batches(cache, share=share, seed=0, start=start, device=bench.device(), place=place)

        return engine_step(bench, trainable(model), batches, bench.folder / f"placement_{place}")

    return [Work("placement", bench.batch, {OURS: step("device"), "host": step("host")})]
