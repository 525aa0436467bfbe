"""`mage demo`: what the package holds, then all steps from images to a report, in the minutes that are given."""

import json
import logging
import math
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import mage
from mage import atomic, distributed, images, runs
from mage.cli.arguments import choice_of, launch_of
from mage.cli.console import counting, emit, note
from mage.cli.options.demo import Options
from mage.data.datasets import ImageDataset
from mage.recipes import Recipe, named, resolve
from mage.recipes.fitting import TooFewMinutes, Training
from mage.report import write_report
from mage.runs.fitted import check_changes, fitted_recipe
from mage.runs.gallery import Gallery
from mage.runs.inputs import training_data
from mage.runs.launch import Launch
from mage.runs.pretrain import check_encoder
from mage.runs.reading import Reading, reading_of
from mage.runs.record import Record, command_line, write_record
from mage.runs.showcase import Showcase
from mage.store import packaged
from mage.store.example_images import read_examples
from mage.training.checkpoint import newest_checkpoint
from mage.training.run import TrainResult

logger = logging.getLogger(__name__)
PARALLEL = True
PACKAGED, RECIPE, MINUTES = "digits", "mnist5k", 5
"""The packaged model that is shown, the recipe of the same images, and the time where none is given."""
PROBES = ("mean", "knn")
"""Classifiers of the features of a model that was trained in minutes."""
TOKENIZER_SHARE = 0.3
"""Of the time for training."""
SHOW_FACTOR, SHOW_SECONDS = 3.0, 20.0
"""Time kept for showing the trained model: so many times what showing the packaged one took, and so much more."""
MINUTES_FILE = "minutes.json"
"""What a demo keeps its minutes in."""


@dataclass
class Clock:
    """The time that is left of the minutes."""

    minutes: float
    start: float = field(default_factory=time.perf_counter)
    showing: float = SHOW_SECONDS
    """Seconds that showing is expected to take."""
    kept: float = SHOW_SECONDS
    """Seconds that training must leave: those, but half of the time at most."""
    kept_at: float | None = None
    """Seconds after the start at which that half was taken."""

    def keep(self, seconds: float) -> None:
        """Keep so much more for showing, but leave training half of the time, though the demo then takes longer."""
        self.showing, self.kept_at = self.showing + seconds, time.perf_counter() - self.start
        self.kept = min(self.showing, max(0.0, 60 * self.minutes - self.kept_at) / 2)

    def left(self) -> float:
        """Minutes for training."""
        return max(0.0, self.minutes - (time.perf_counter() - self.start + self.kept) / 60)

    def needed(self, more: float, training: Training) -> int:
        """Minutes of a demo that has so many more for a training, of what showing and the tokenizer leave of them."""
        before = (self.kept_at or 0.0) / 60
        aim = self.minutes - before - self.kept / 60
        aim += more / (1 - TOKENIZER_SHARE) if training == "pretraining" else more
        whole = aim + self.showing / 60
        return math.ceil(before + (whole if self.kept_at is None else min(whole, 2 * aim)))


def run(options: Options) -> None:
    """Every step of the library, in order."""
    minutes = minutes_of(options)
    clock = None if minutes is None else Clock(minutes)
    recipe, launch = resolve(choice_of(options)), launch_of(options)
    launch = replace(launch, resume=newest_checkpoint(launch.out) is not None)
    has_packaged = recipe.data.name == named(RECIPE).data.name and PACKAGED in packaged.names()
    try:
        check_encoder(recipe)
    except ValueError as error:
        raise ValueError(f"{error}; a demo starts from none") from None
    if minutes:
        check_changes(options.set, "tokenizer_training", "pretraining")
    if minutes == 0 and not has_packaged:
        raise ValueError(f"--minutes 0 shows the packaged model of {RECIPE}'s images: leave out --recipe and --data")
    train = None if minutes == 0 else training_data(recipe, options.data_root).train  # before anything is written
    with launch.locked():
        if train is not None:
            distributed.by_first_process(lambda: _keep_to(launch.out, minutes))
        if has_packaged:
            begin = time.perf_counter()
            distributed.by_first_process(lambda: _show_packaged(options, last=minutes == 0))
            if clock is not None:
                clock.keep(SHOW_FACTOR * (time.perf_counter() - begin))
        if train is not None:
            _train(options, recipe, launch, train, clock)


def minutes_of(options: Options) -> int | None:
    """The time for everything; None: as many steps as the recipe says."""
    if options.minutes is None and not (options.recipe or options.config or options.set):
        return MINUTES
    return options.minutes


def _show_packaged(options: Options, *, last: bool) -> None:
    """Figures of the packaged model on the images that come with it, in OUT/packaged; its card has the measures.

    last: nothing follows.
    """
    folder, card = options.out / "packaged", packaged.card_of(PACKAGED)
    note(options, f"the packaged model {PACKAGED}: {card.title}")
    # by its path: a folder of the same name in the working directory would come first
    model = mage.load(packaged.FOLDER / PACKAGED, precision=options.precision, device=options.device)
    gallery = Gallery(model, images.to_float(read_examples(PACKAGED)[0]), folder)
    gallery.draw()
    with gallery.timed("features"):
        gallery.neighbours()
    results = card.record | {"timings": {name: round(seconds, 1) for name, seconds in gallery.timings.items()}}
    atomic.write_json(folder / "results.json", results)
    report = write_report(folder)
    if last:
        emit(options, {"report": str(report), **results}, f"report: {report}")
    else:
        note(options, f"its report: {report}")


def _train(options: Options, recipe: Recipe, launch: Launch, train: ImageDataset, clock: Clock | None) -> None:
    """Tokenizer, tokens and MAGE; clock: what they must keep to, if not to the recipe's steps."""
    timings = dict[str, float]()
    note(options, "1 of 5: train the tokenizer")
    part = launch.inside("tokenizer")
    reading = reading_of(recipe, train, recipe.data.tokenizer_transform, launch.workers)
    intervals = recipe.run
    recipe = _fitted(options, recipe, part, "tokenizer_training", len(train), clock, TOKENIZER_SHARE, reading)
    timings["train_tokenizer"] = runs.train_tokenizer(recipe, part).seconds
    note(options, "2 of 5: encode every image once")
    tokenizer = runs.load_tokenizer(part.out, precision=options.precision, device=options.device)
    begin = time.perf_counter()
    with counting(len(train), "image", options) as done:
        cache = runs.tokenize(recipe, launch.inside("tokens"), tokenizer, on_images=done)
    timings["tokenize"] = time.perf_counter() - begin
    note(options, "3 of 5: pre-train MAGE on the tokens")
    recipe = _fitted(options, replace(recipe, run=intervals), launch, "pretraining", len(cache), clock)
    result = runs.pretrain(recipe, launch, tokenizer, cache=cache)
    timings["pretrain"] = result.seconds
    distributed.by_first_process(lambda: _show(options, recipe, result, timings))


def _keep_to(out: Path, minutes: int | None) -> None:
    """Keep the minutes in the folder. Raises ValueError if it holds a demo of other minutes, whose steps are set."""
    begun, file = newest_checkpoint(out / "tokenizer") is not None, out / MINUTES_FILE
    if begun and not file.exists():
        logger.warning("%s holds a demo of an earlier version, which goes on: another --out makes a new one", out)
        return
    before = json.loads(file.read_text())["minutes"] if begun else minutes
    if before != minutes:
        raise ValueError(f"{out} holds a demo {_length(before)}: give --out another folder for one {_length(minutes)}")
    atomic.write_json(file, {"minutes": minutes})


def _length(minutes: int | None) -> str:
    return "of as many steps as its recipe says" if minutes is None else f"of {minutes} minutes"


def _fitted(
    options: Options,
    recipe: Recipe,
    launch: Launch,
    training: Training,
    size: int,
    clock: Clock | None,
    share: float = 1.0,
    reading: Reading | None = None,
) -> Recipe:
    if clock is None:
        return recipe
    left = clock.left()
    try:
        return fitted_recipe(
            recipe, launch, training, size, share * left, shrink=True, reading=reading, changes=options.set
        )
    except TooFewMinutes as error:
        elsewhere = " and another --out" if training == "pretraining" else ""
        raise ValueError(
            f"of {clock.minutes:g} minutes {share * left:.1f} are left for this training: {error.sentence}; "
            f"give at least --minutes {clock.needed(error.needed / share - left, training)}{elsewhere}"
        ) from None


def _show(options: Options, recipe: Recipe, result: TrainResult, timings: dict[str, float]) -> None:
    note(options, "4 of 5: generate, reconstruct, edit, probe")
    model = mage.load(options.out, precision=options.precision, device=options.device)
    probes = PROBES if minutes_of(options) is not None else Showcase.probes
    show = Showcase(model, recipe, options.out, options.data_root, num_samples=options.samples, probes=probes)
    show.run()
    timings |= show.timings
    note(options, "5 of 5: write the report")
    record = Record(
        command_line("mage demo"),
        recipe.seed,
        {"training": schedule(recipe)} | show.protocols,
        timings,
        {**show.metrics, "pretrain_valid_loss": result.metrics["valid/loss"]},
        show.intervals,
    )
    write_record(options.out / "results.json", record)
    report = write_report(options.out)
    if options.record is not None:
        _copy(options.out / "results.json", options.record)
    emit(options, {"report": str(report), **record.as_dict()}, f"report: {report}")


def schedule(recipe: Recipe) -> str:
    """Steps and sizes of both trainings, in words."""
    assert recipe.tokenizer is not None
    first, second = recipe.tokenizer_training, recipe.pretraining
    return (
        f"tokenizer, {recipe.tokenizer.width} wide: {first.steps:,} steps of {first.batch_size} images; "
        f"MAGE, {recipe.model.depth} blocks: {second.steps:,} steps of {second.batch_size} images"
    )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
