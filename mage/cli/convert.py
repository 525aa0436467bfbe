"""`mage convert`: a released checkpoint -> our folder, and a converted folder -> a released checkpoint."""

from pathlib import Path

from mage.checkpoints import foreign, official
from mage.cli.arguments import sizes_of
from mage.cli.console import emit
from mage.cli.options.convert import Options
from mage.cli.options.places import check_new_file
from mage.store import folder as store
from mage.store import hub
from mage.store.model_card import CardFacts, card_of


def run(options: Options) -> None:
    """Convert, and print what was kept and what was dropped."""
    _convert(options)
    if options.to_hub_layout:
        hub.prepare(options.out, card_of(options.out.resolve().name, store.read(options.out), CardFacts()))


def _convert(options: Options) -> None:
    if not options.files:
        raise ValueError("give the file to convert, such as: mage convert mage-vitb-1600.pth --out models/mage-base")
    for path in options.files:
        if not path.exists():
            raise ValueError(f"there is no file {path}")
    if len(options.files) == 1 and _is_foreign(options.files[0]):
        _convert_foreign(options)
        return
    if len(options.files) == 1 and options.files[0].is_dir():
        if options.to_hub_layout:
            raise ValueError(
                "--to-hub-layout is for model folders, not for files that are converted back: leave it out"
            )
        if options.config is not None or options.allow_extra or options.image_size is not None:
            raise ValueError("--config, --allow-extra and --image-size are for reading released files: leave them out")
        check_new_file("--out", options.out, (".pth", ".pt", ".ckpt"))
        official.to_released(options.files[0], options.out)
        emit(options, {"out": str(options.out)}, f"{options.out}: names, shapes and types as they were released")
        return
    config = sizes_of(options.config)
    if options.image_size is not None:
        config = (config or {}) | {"image_size": list(options.image_size)}
    converted = official.convert(list(options.files), options.out, config=config, allow_extra=options.allow_extra)
    dropped = ", ".join(converted.dropped) or "nothing"
    emit(
        options,
        {
            "out": str(options.out),
            "kind": converted.kind,
            "dropped": converted.dropped,
            "extra": sorted(converted.extra),
        },
        f"{options.out}: {converted.kind}; {len(converted.extra)} tensors that the network does not use kept aside; "
        f"dropped: {dropped}",
    )


def _is_foreign(path: Path) -> bool:
    if path.is_dir():
        return foreign.is_diffusers(path)
    return foreign.is_taming_file(path)


def _convert_foreign(options: Options) -> None:
    path = options.files[0]
    if options.config is not None or options.allow_extra:
        raise ValueError(f"{path} is a tokenizer trained elsewhere, whose tensors say everything: leave out --config "
                         "and --allow-extra")  # fmt: skip
    if path.is_dir():
        parts = foreign.read_diffusers(path, image_size=options.image_size)
    else:
        parts = foreign.read_taming(path, image_size=options.image_size or (256, 256))
    store.write(parts, options.out)
    tokenizer = parts.tokenizer
    assert tokenizer is not None
    height, width = tokenizer.grid
    emit(
        options,
        {"out": str(options.out), "kind": "tokenizer", "grid": [height, width], "num_codes": tokenizer.num_codes},
        f"{options.out}: tokenizer, {tokenizer.image_size[0]} x {tokenizer.image_size[1]} pixels to {height} x {width} "
        f"tokens, {tokenizer.num_codes} codes",
    )
