"""`mage generate`: generate images, one or a hundred thousand."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import mage
from mage import atomic, distributed, images, pictures
from mage.cli.arguments import classes_of, precision_of, sampling_of
from mage.cli.console import counting, emit
from mage.cli.options.generate import Options
from mage.device import device_of
from mage.evaluation.extractors import build_extractor
from mage.runs.production import Production, check_job, claim, discard, part_lock, precision_in, produce, units
from mage.runs.sinks import FeatureShards, PngFolder, Sink, TarShards, first_images
from mage.runs.workers import in_processes
from mage.sampling.classes import class_numbers

PARALLEL = True
IN_A_ROW, MOST_ROWS = 10, 20
"""Images and classes of the overview."""


def run(options: Options) -> None:
    """Generate missing images and write a grid of the first hundred."""
    if options.part is not None and options.processes > 1:
        raise ValueError("give --part or --processes, not both")
    launched = (distributed.rank(), distributed.world_size())
    several = launched[1] > 1
    if several and (options.part is not None or options.processes > 1):
        raise ValueError("torchrun sets the part of each process: leave out --part and --processes")
    if options.overwrite and options.part is not None:
        raise ValueError(
            "--overwrite would discard the images of other parts: remove the folder before the parts start"
        )
    device = options.device if several or options.processes == 1 else device_of(options.device, 0)
    precision = precision_of(options, None if options.overwrite else precision_in(options.out))
    model = mage.load(options.model, precision=precision, device=device)
    if model.tokenizer is not None and model.channels not in (1, 3):
        raise ValueError(
            f"this model generates {model.channels} channels, but PNG has 1 or 3: use mage.load(...).generate in Python"
        )
    production = _production(options, model)
    if model.tokenizer is None and model.transformer is not None:
        distributed.by_first_process(lambda: _generate_tokens(options, model, production))
        return
    model.check_generation(production.classes or None, **production.sampling)
    part = options.part or (launched if several else (0, options.processes))
    sink = _sink(options, model, production)
    check_job(production, sink, part)
    extractor = sink.extractor if isinstance(sink, FeatureShards) else None

    def prepare() -> None:
        if options.overwrite:
            discard(options.out)
        claim(options.out, model, production, options.to, sink.unit, extractor=extractor)

    distributed.by_first_process(prepare)
    shared = replace(options, processes=1, precision=model.precision)
    others = [
        replace(shared, part=(number, options.processes), device=device_of(options.device, number))
        for number in range(1, options.processes)
    ]
    mine = sum(map(len, units(options.num, sink.unit, part)))
    with part_lock(options.out, part), in_processes(_work, others), counting(mine, "image", options) as done:
        for count in produce(model, production, sink, part):
            done(count)
    distributed.wait_for_all()
    distributed.by_first_process(lambda: _show(options, production, sink, model))


def _show(options: Options, production: Production, sink: Sink, model: mage.Mage) -> None:
    missing = sum(not sink.has(unit) for unit in units(options.num, sink.unit))
    result = {"out": str(options.out), "images": options.num, "missing_units": missing}
    if missing:
        emit(options, result, f"{options.out}: this part is done, {missing} units of other parts are still missing")
        return
    shown = first_images(options.out, min(100, options.num))
    if not shown:
        emit(options, result, f"{options.out}: features of {options.num} images by {options.extractor}")
        return
    grid = options.out / "grid.png"
    images.save_png(grid, _overview(torch.stack(shown), [production.class_of(k) for k in range(len(shown))], model))
    emit(options, result | {"grid": str(grid)}, f"{options.num} images and {grid}")


def _overview(shown: Tensor, classes: list[int | str | None], model: mage.Mage) -> Tensor:
    """The first images: in a square, or, where few classes were asked for, in a labelled row for each class."""
    if None in classes or len(set(classes)) > MOST_ROWS:
        return images.enlarge(images.make_grid(shown))
    rows = []
    for asked in dict.fromkeys(classes):
        places = [place for place, other in enumerate(classes) if other == asked]
        number, names = _number(asked, model), model.class_names
        rows.append((names[number] if 0 <= number < len(names) else str(asked), shown[places]))
    return pictures.labelled_rows(rows, most=IN_A_ROW)


def _number(asked: int | str | None, model: mage.Mage) -> int:
    """The number of a class that was given by number or by name."""
    return int(class_numbers(asked, 1, model.require_generator().config.num_classes, model.class_names))


def _label(asked: int | str | None, model: mage.Mage) -> str | None:
    """What a .cls file says of it: the name that was given, or the number, also of a class whose name is a number."""
    if isinstance(asked, str) and not asked.lstrip("-").isdecimal():
        return asked
    return None if asked is None else str(_number(asked, model))


def _sink(options: Options, model: mage.Mage, production: Production) -> Sink:
    if options.to == "tar":
        return TarShards(options.out, options.shard_size, lambda number: _label(production.class_of(number), model))
    if options.to == "features":
        extractor = build_extractor(options.extractor, weights=options.extractor_weights, device=model.device)
        return FeatureShards(options.out, options.shard_size, extractor)
    return PngFolder(options.out, options.batch_size)


def _work(options: Options) -> None:
    """Generate the part of one of several processes, without printing."""
    assert options.part is not None
    model = mage.load(options.model, precision=options.precision, device=options.device)
    production = _production(options, model)
    with part_lock(options.out, options.part):
        for _ in produce(model, production, _sink(options, model, production), options.part):
            pass


def _production(options: Options, model: mage.Mage) -> Production:
    return Production(options.num, options.seed, options.batch_size, classes_of(options, model), sampling_of(options))


def _generate_tokens(options: Options, model: mage.Mage, production: Production) -> None:
    if options.to != "png" or options.processes > 1 or options.part is not None:
        raise ValueError("this model has no tokenizer: it writes tokens.npy, without --to, --processes or --part")
    numbers = range(options.num)
    with counting(options.num, "sequence", options) as done:
        ids = model.generate_tokens(
            options.num, on_batch=done, seed=options.seed, batch_size=options.batch_size,
            classes=production.classes_of(numbers), **production.sampling,
        ).cpu()  # fmt: skip
    with atomic.replacing(options.out / "tokens.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, ids.numpy())
    result = {"out": str(options.out / "tokens.npy"), "shape": list(ids.shape)}
    emit(options, result, f"{options.out / 'tokens.npy'}: integers {tuple(ids.shape)}; this model has no tokenizer")
