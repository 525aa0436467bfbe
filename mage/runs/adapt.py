"""Adapt a model to a folder of images, in minutes: its tokenizer where that loses too much, then its pre-training.

The run folder is one of pre-training, with `adapt.json` in addition: what was decided, and the measures before and
after. Every finished step is written there, so that a stopped call goes on when it is repeated.

Of the tokenizer, only the decoder is trained. Encoder and codebook determine what a token means; if they changed, the
network would have to learn its codes anew.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mage import distributed, images, pictures
from mage.data.datasets import content_of
from mage.data.splits import TrainingData
from mage.data.token_cache import TokenCache
from mage.evaluation.image_classifier import model_fingerprint
from mage.evaluation.metric import Measured
from mage.pipeline import Mage, load
from mage.recipes.fitting import Training
from mage.recipes.schema import Recipe
from mage.runs.adapted_recipe import adapted_recipe, tuning_recipe
from mage.runs.before_after import TestedImages, colour_warnings, pretraining_warnings
from mage.runs.fitted import check_changes, fitted_recipe
from mage.runs.inputs import open_data, training_data, validation_images
from mage.runs.journal import Journal
from mage.runs.launch import Launch
from mage.runs.pretrain import pretrain
from mage.runs.reading import reading_of
from mage.runs.record import Record, command_line, write_record
from mage.runs.tokenizer import load_tokenizer, tokenizer_of, train_tokenizer
from mage.runs.tokenizer_check import TokenizerCheck, better, check_tokenizer, tokenizer_warnings
from mage.runs.tokens import tokenize
from mage.tokenizers import VQGAN
from mage.training.checkpoint import newest_checkpoint
from mage.training.runlog import read_log

logger = logging.getLogger(__name__)

FILE = "adapt.json"
Tuning = Literal["auto", "keep", "tune"]
Counting = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""(number of images) -> a context, whose function is called with the images done since the last call."""
FEWEST_IMAGES = 10
"""Some are for training, some to watch it, some to measure the result."""
TOKENIZER_SHARE = 0.25
"""Of the minutes, if the tokenizer is tuned."""


@dataclass(frozen=True)
class Adapted:
    """A finished adaptation; the model is in the run folder."""

    tokenizer: Literal["kept", "tuned"]
    check: TokenizerCheck
    """Of the tokenizer as it was given."""
    before: Measured
    after: Measured
    """On the same test images as before."""
    steps: int
    """Of pre-training."""
    seconds: dict[str, float]
    """Of each training."""
    warnings: tuple[str, ...]
    skipped: tuple[str, ...]
    """Image files that could not be read."""


def adapt(
    model: Mage,
    data: str | Path,
    launch: Launch,
    *,
    minutes: float = 20,
    tokenizer: Tuning = "auto",
    changes: tuple[str, ...] = (),
    seed: int | None = None,
    counting: Counting | None = None,
) -> Adapted:
    """Continue a model's training on other images, for so many minutes; the given model does not change.

    data: folder of images, or a data set by name. tokenizer: tune its decoder, keep it, or "auto": tune it if it loses
    too much. changes: settings that differ from the model's recipe, such as "data.transform.augmentation=flip".
    counting: shows how far the encoding of images is.
    A stopped call goes on when it is repeated; a training that has begun keeps its length.
    Raises ValueError for a model without tokenizer or recipe, too few images or minutes, changes of the steps, and a
    folder in use.
    """
    check_changes(changes, "tokenizer_training", "pretraining")
    model.to(launch.start())
    recipe = adapted_recipe(model, data, launch.data_root, changes=changes, seed=seed)
    parts = training_data(recipe, launch.data_root)
    _check_count(parts, data)
    asked: dict[str, Any] = {"tokenizer": tokenizer, "changes": list(changes), "seed": recipe.seed}
    asked |= {"model": model_fingerprint(model), "images": content_of(parts.train)}
    _check_folder(launch.out)
    with launch.locked():
        journal = Journal(launch.out / FILE, asked)
        return Adaptation(model, recipe, launch, parts, journal).run(minutes, tokenizer, counting)


class Adaptation:
    """The steps of `adapt`."""

    def __init__(self, model: Mage, recipe: Recipe, launch: Launch, parts: TrainingData, journal: Journal) -> None:
        self.model, self.recipe, self.launch, self.parts, self.journal = model, recipe, launch, parts, journal
        self.tested = TestedImages(parts.train, open_data(recipe.data.name, "test", recipe, launch.data_root))

    def run(self, minutes: float, tuning: Tuning, counting: Counting | None) -> Adapted:
        """All steps; those that are finished are not repeated."""
        launch = replace(self.launch, out=self.launch.out / "tokens")
        if "result" in self.journal.values:
            logger.info("%s is finished already: this is what came out", self.launch.out)
        else:
            self.say(1, f"{len(self.parts.train):,} images become tokens")
        with nullcontext(None) if counting is None else counting(len(self.parts.train)) as on_images:
            cache = tokenize(self.recipe, launch, self.model, on_images=on_images)
        for warning in colour_warnings(self.model.channels, self.recipe.data.name, self.launch.data_root):
            logger.warning("%s", warning)
        check = TokenizerCheck(**self.journal.once("check", lambda: self.check(self.model)))
        logger.info("%s", check.sentence)
        if "result" not in self.journal.values:
            self.train(check, tuning == "tune" or (tuning == "auto" and check.loses_too_much), cache, minutes)
        before, result = self.journal.values["before"], self.journal.values["result"]
        return Adapted(
            result["tokenizer"],
            check,
            Measured(**before),
            Measured(**result["after"]),
            result["steps"],
            result["seconds"],
            tuple(result["warnings"]),
            tuple(result["skipped"]),
        )

    def train(self, check: TokenizerCheck, tune: bool, cache: TokenCache, minutes: float) -> None:
        """Tune the tokenizer if it is to be tuned, continue pre-training, and measure both models."""
        # both schedules before either training, so that too few minutes are told at once
        share, size = TOKENIZER_SHARE if tune else 0.0, len(cache)
        recipe = self.fitted(self.recipe, "pretraining", size, minutes, 1 - share)
        tuning = self.fitted(tuning_recipe(self.recipe), "tokenizer_training", size, minutes, share) if tune else None
        self.say(2, "the model is measured as it is")
        before = self.journal.once("before", lambda: self.measure(self.model, "samples_before"))
        if tuning is None:
            self.say(3, "the tokenizer is kept")
        else:
            self.say(3, f"the tokenizer's decoder is tuned; its codes stay: {tuning.tokenizer_training.steps:,} steps")
        tokenizer, recheck = tokenizer_of(self.model), None
        if tuning is not None:
            tokenizer, recheck = self.tune(tuning, check)
        words = tokenizer.require_tokenizer()
        assert isinstance(words, VQGAN)
        recipe = replace(recipe, tokenizer=words.config)  # changes of its sizes hold if it was tuned and taken
        self.say(4, f"pre-training goes on with these images: {recipe.pretraining.steps:,} steps")
        pretrain(recipe, self.started(), tokenizer, cache=cache, init_from=self.model)
        self.say(5, "the new model is measured")
        self.journal.once("result", lambda: self.finish(check, recheck, before, cache.index.skipped))

    @staticmethod
    def say(step: int, what: str) -> None:
        """Log which step begins."""
        if distributed.is_first():
            logger.info("step %d of 5: %s", step, what)

    def fitted(self, recipe: Recipe, training: Training, num_images: int, minutes: float, share: float) -> Recipe:
        """The recipe with a batch and steps for the minutes; of a training that has begun, with those that it has."""
        launch = self.started() if training == "pretraining" else self.launch.inside("tokenizer")
        reading = None  # of cached tokens
        if training == "tokenizer_training":
            reading = reading_of(recipe, self.parts.train, recipe.data.tokenizer_transform, launch.workers)
        return fitted_recipe(
            recipe, launch, training, num_images, minutes, share=share, continued=True, reading=reading,
            changes=self.journal.values["asked"]["changes"],
        )  # fmt: skip

    def started(self) -> Launch:
        """The launch of pre-training, which resumes if it has begun."""
        return replace(self.launch, resume=newest_checkpoint(self.launch.out) is not None)

    def check(self, model: Mage) -> dict[str, Any]:
        """Reconstructions of the held-out images; a choice is made by them, so test images are not used."""
        return asdict(check_tokenizer(model, validation_images(self.recipe, self.parts.validation)))

    def measure(self, model: Mage, name: str) -> dict[str, Any]:
        """The measures of a model; its samples become a figure of this name."""
        images.save_png(self.figure(name), images.enlarge(self.tested.samples(model)))
        return vars(self.tested.measure(model))

    def figure(self, name: str) -> Path:
        """File of a figure in the run folder."""
        return self.launch.out / "figures" / f"{name}.png"

    def tune(self, recipe: Recipe, check: TokenizerCheck) -> tuple[Mage, TokenizerCheck]:
        """The tokenizer after its decoder was trained, if that is better on held-out images, and its check."""
        launch, own = self.launch.inside("tokenizer"), tokenizer_of(self.model)
        words = own.require_tokenizer()
        assert isinstance(words, VQGAN)
        train_tokenizer(recipe, launch, init_from=words)
        tuned = load_tokenizer(launch.out, precision=self.launch.precision, device=str(self.model.device))
        recheck = TokenizerCheck(**self.journal.once("tuned", lambda: self.check(tuned)))
        recheck = replace(recheck, own_psnr_db=check.own_psnr_db)  # still compared with its first training's images
        logger.info("after tuning, %s", recheck.sentence)
        if not better(recheck, check):
            return own, recheck
        tuned.notes = own.notes | tuned.notes
        return tuned, recheck

    def finish(
        self, check: TokenizerCheck, recheck: TokenizerCheck | None, before: dict[str, Any], skipped: Sequence[str]
    ) -> dict[str, Any]:
        """Measures and pictures of the new model, and what is to be said about it."""
        out = self.launch.out
        model = load(out, precision=self.launch.precision, device=self.model.device)
        after = self.measure(model, "samples")
        rows = {"original": self.tested.shown(model)}
        rows |= {name: self.tested.reconstructions(one) for name, one in (("before", self.model), ("after", model))}
        images.save_png(self.figure("before_after"), pictures.labelled_rows(list(rows.items())))
        logs = {"pretrain": read_log(out)}
        if recheck is not None:
            logs["tune_tokenizer"] = read_log(out / "tokenizer")
        seconds = {name: max(line.get("seconds", 0.0) for line in log) for name, log in logs.items()}
        protocols = after["protocols"] | {"data": f"{self.recipe.data.name}, test images"}
        command = command_line("mage adapt")
        write_record(out / "results.json", Record(command, self.recipe.seed, protocols, seconds, after["metrics"]))
        unreadable = dict.fromkeys([*skipped, *self.parts.train.skipped, *self.tested.test.skipped])
        return {
            "tokenizer": "tuned" if recheck is not None and better(recheck, check) else "kept",
            "after": after,
            "steps": logs["pretrain"][-1]["step"],
            "seconds": seconds,
            "warnings": [
                *colour_warnings(self.model.channels, self.recipe.data.name, self.launch.data_root),
                *tokenizer_warnings(check, recheck),
                *pretraining_warnings(before["metrics"], after["metrics"], logs["pretrain"]),
            ],
            "skipped": list(unreadable),
        }


def _check_count(parts: TrainingData, data: str | Path) -> None:
    count = len(parts.train) + len(parts.validation) if parts.train is not parts.validation else len(parts.train)
    if count < FEWEST_IMAGES:
        raise ValueError(
            f"{data} holds {count} images to train on: adapting takes at least {FEWEST_IMAGES}, and does well with "
            "hundreds"
        )


def _check_folder(out: Path) -> None:
    """Raise ValueError for a folder that holds something else."""
    if out.is_file():
        raise ValueError(f"{out} is a file; --out takes a folder")
    if (out / "config.json").exists():
        raise ValueError(f"{out} is a model folder; choose another folder for the run")
    if not (out / FILE).exists() and newest_checkpoint(out) is not None:
        raise ValueError(f"{out} already holds a run that is no adaptation; choose another folder")
