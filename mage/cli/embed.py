"""`mage embed`: features of every image of a folder, in a table."""

from collections.abc import Callable
from typing import Any

import mage
from mage import runs
from mage.cli.arguments import precision_of
from mage.cli.console import counting_images, emit, skipped_sentence
from mage.cli.options.embed import FolderOptions, Options
from mage.data.tar_images import ShardConfig
from mage.runs.rows import Table, precision_in


def run(options: Options) -> None:
    """Embed and print what was written."""
    precision = precision_of(options, precision_in(options.out))
    model = mage.load(options.model, precision=precision, device=options.device)
    table = listing(options, lambda **more: runs.embed(model, options.data, options.out, pool=options.pool, **more))
    emit(options, values_of(table), sentence_of(table, "features"))


def listing(options: FolderOptions, write: Callable[..., Table]) -> Table:
    """The table that `write` makes with the command's options, with a progress bar."""
    with counting_images(options) as (start, done):
        return write(
            split=options.split,
            data_root=options.data_root,
            shards=ShardConfig(skip_broken=options.skip_broken),
            batch_size=options.batch_size,
            workers=options.workers,
            on_start=start,
            on_images=done,
        )


def values_of(table: Table) -> dict[str, Any]:
    """A table's counts for machines."""
    skipped = list(table.skipped)
    return {"out": str(table.out), "images": table.images, "computed": table.computed, "skipped": skipped}


def sentence_of(table: Table, content: str) -> str:
    """A table's counts for people."""
    kept = table.images - table.computed
    there = f" ({kept:,} were there)" if kept else ""
    return f"{table.out}: {content} of {table.images:,} images{there}{skipped_sentence(table.skipped)}"
