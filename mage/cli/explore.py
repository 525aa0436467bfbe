"""`mage explore`: a folder of images as one page."""

import mage
from mage.cli.console import counting_images, emit, skipped_sentence
from mage.cli.options.explore import Options
from mage.report.explore import write_exploration
from mage.runs.explore import explore


def run(options: Options) -> None:
    """Explore, write the page and print what was found."""
    model = mage.load(options.model, precision=options.precision, device=options.device)
    with counting_images(options) as (start, done):
        found = explore(
            model,
            options.data,
            limit=options.limit,
            clusters=options.clusters,
            pool=options.pool,
            split=options.split,
            data_root=options.data_root,
            batch_size=options.batch_size,
            model_name=str(options.model),
            on_start=start,
            on_images=done,
        )
    page = write_exploration(found, options.out)
    pairs, size = found.neighbours.near_duplicates(), page.stat().st_size
    values = {
        "page": str(page),
        "bytes": size,
        "images": len(found.files),
        "total": found.total,
        "groups": found.clusters.count,
        "near_duplicates": [[found.files[pair.first], found.files[pair.second], pair.distance] for pair in pairs],
        "outliers": [found.files[index] for index in found.neighbours.outliers(10)],
        "skipped": list(found.skipped),
    }
    emit(
        options,
        values,
        f"{page} ({size / 1e6:.1f} MB): {len(found.files):,} of {found.total:,} images, {found.clusters.count} groups, "
        f"{len(pairs):,} near-duplicate pairs{skipped_sentence(found.skipped)}",
    )
