"""`mage shards`: a data set as tar shards."""

from mage import runs
from mage.cli.console import counting_images, emit, skipped_sentence
from mage.cli.options.shards import Options
from mage.data.shard_writer import parse_bytes


def run(options: Options) -> None:
    """Write the shards and print how many there are."""
    with counting_images(options) as (start, done):
        written = runs.shards(
            options.data,
            options.out,
            most_bytes=parse_bytes(options.size),
            seed=options.seed,
            data_root=options.data_root,
            on_start=start,
            on_images=done,
        )
    skipped = [path for part in written.values() for path in part.skipped]
    result = {
        "out": str(options.out),
        "images": {split or "all": part.images for split, part in written.items()},
        "shards": {split or "all": len(part.shards) for split, part in written.items()},
        "skipped": skipped,
    }
    counts = ", ".join(
        f"{part.images:,} {f'{split} ' if split else ''}images in {len(part.shards):,} shards"
        for split, part in written.items()
    )
    emit(options, result, f"{options.out}: {counts}{skipped_sentence(skipped)}")
