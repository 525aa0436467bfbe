"""Studies choose by validation images: test images are read for the final measure of what was chosen only."""

import argparse
import importlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import mage
from mage import atomic
from mage.data.datasets import DATASETS, ArrayDataset, ImageDataset, load_dataset
from mage.evaluation.anomaly import Scoring
from mage.evaluation.extractors import Extractor, Seen
from mage.evaluation.metric import Measured
from mage.evaluation.seen import Reference, SeenImages
from mage.pipeline.generating import changed_settings
from mage.recipes import named
from mage.runs.adapt import Adapted
from mage.runs.production import Production
from mage.runs.tokenizer_check import TokenizerCheck
from mage.sampling.settings import SamplingConfig
from mage.store.example_images import read_examples

STUDIES = Path(__file__).resolve().parent.parent / "studies"
HELPERS = (
    "choices",
    "emoji",
    "generation_study",
    "kills",
    "left_out",
    "mutations",
    "object_store",
    "readers",
    "sheets",
)
"""Modules that studies import from their own folder."""


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Loads a script of studies/ by name, under a name of its own."""
    monkeypatch.syspath_prepend(str(STUDIES))

    def load(name: str) -> ModuleType:
        found = importlib.util.spec_from_file_location(f"studies_{name}", STUDIES / f"{name}.py")
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        monkeypatch.setitem(sys.modules, found.name, module)  # where dataclasses look for their module
        found.loader.exec_module(module)
        return module

    before = DATASETS.names()
    yield load
    for name in set(DATASETS.names()) - set(before):  # data sets without a class, which a study registers
        DATASETS.remove(name)
    for name in HELPERS:
        sys.modules.pop(name, None)


def images_called(name: str, count: int) -> ArrayDataset:
    pixels = torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(count)).to(torch.uint8)
    return ArrayDataset(name, pixels, np.arange(count) % 10, tuple("0123456789"))


class Parts:
    """Stands for `choices.Parts`, and notes in `asked` when test images were asked for."""

    def __init__(self) -> None:
        self.train, self.validation = images_called("train", 60), images_called("validation", 20)
        self.asked: list[str] = []

    @property
    def test(self) -> ImageDataset:
        self.asked.append("test")
        return images_called("test", 30)


def test_parts_open_no_test_images_before_they_are_asked_for(
    study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And the validation images are those that the model's own training held out."""
    choices = study("choices")
    asked: list[str] = []

    def load_dataset(name: str, *, split: str, **more: Any) -> ImageDataset:
        asked.append(split)
        return images_called(f"{name} {split}", 40)

    monkeypatch.setattr(choices, "load_dataset", load_dataset)
    monkeypatch.setattr("mage.runs.inputs.load_dataset", load_dataset)
    smoke = named("smoke")
    model = mage.build(smoke.model, tokenizer=smoke.tokenizer, precision="float32")
    model.recipe["data"] = {"validation": {"share": 0.25, "seed": 3}}
    parts = choices.Parts(model, "digits", None)
    assert (len(parts.train), len(parts.validation)) == (30, 10)
    assert not set(parts.train.indices) & set(parts.validation.indices)
    assert asked == ["train"]
    assert "10 validation images" in parts.sentence("Everything was chosen")
    assert "40 test images" in parts.sentence("Everything was chosen")
    assert asked == ["train", "test"]


# Validation images say that the first of two is better, test images that the second is.
TOKENIZERS = {
    "validation": {"vq": 1.0, "ema": 2.0, "gan_off": 1.0, "gan_on": 2.0, "best": 5.0},
    "test": {"vq": 9.0, "ema": 0.0, "gan_off": 9.0, "gan_on": 0.0, "best": 5.0},
}


def test_tokenizers_are_chosen_by_validation_images(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, parts = study("tokenizers"), Parts()
    measured: list[tuple[str, str]] = []

    def evaluate_tokenizer(model: str, dataset: ImageDataset, protocol: Any) -> SimpleNamespace:
        if dataset.name == "validation":
            assert not parts.asked, "test images are asked for before all is compared"
        measured.append((dataset.name, model))
        metrics = dict.fromkeys(module.SHOWN, 0.0) | {f"rfd_judge_{dataset.name}10": TOKENIZERS[dataset.name][model]}
        return SimpleNamespace(metrics=metrics)

    monkeypatch.setattr(module, "evaluate_tokenizer", evaluate_tokenizer)
    monkeypatch.setattr(module, "build_perceptual", lambda name: None)
    monkeypatch.setattr(module.runs, "load_tokenizer", lambda path: path.name)
    monkeypatch.setattr(module, "read_log", lambda path: [{"seconds": 1.0}])
    rows = module.compare_variants(list(TOKENIZERS["test"]), Path("out"), parts, ())
    assert [name for split, name in measured if split == "validation"] == list(TOKENIZERS["test"])
    assert [name for split, name in measured if split == "test"] == ["vq", "gan_off", "best"]
    assert rows["vq"]["fd_judge"] == 1.0
    assert rows["vq_test"]["fd_judge"] == 9.0


FORMS = {  # distance of the samples, accuracy of least squares
    "validation": {"before": (10.0, 0.4), "control": (10.0, 0.4), "published": (10.1, 0.5), "weight_0.3": (12.0, 0.9)},
    "test": {"before": (10.0, 0.4), "control": (10.0, 0.4), "published": (99.0, 0.1), "weight_0.3": (9.0, 0.9)},
}


def test_a_form_of_the_contrast_is_chosen_by_validation_images(
    study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module, parts = study("mage_c"), Parts()
    measured: list[tuple[str, str, int]] = []

    def look(folder: Path, train: ImageDataset, real: ImageDataset, samples: int, *, seed: int) -> dict[str, float]:
        if real.name == "validation":
            assert not parts.asked, "test images are asked for before all is compared"
        measured.append((real.name, folder.name, seed))
        return dict(zip(("fd", "linear"), FORMS[real.name][folder.name], strict=True))

    monkeypatch.setattr(module, "look", look)
    monkeypatch.setattr(module, "train", lambda name, options: tmp_path / name)
    monkeypatch.setattr(module, "read_log", lambda path: [{"valid/loss": 1.0}])
    options = argparse.Namespace(
        model=tmp_path / "before", out=tmp_path, samples=5, only=["control", "published", "weight_0.3"]
    )
    rows = module.compare_forms(parts, options)
    assert {seed for split, _, seed in measured if split == "validation"} == {0}
    assert [(name, seed) for split, name, seed in measured if split == "test"] == [
        ("before", 1),
        ("control", 1),
        ("published", 1),
    ]
    assert rows["published"]["fd"] == 10.1
    assert rows["published_test"]["fd"] == 99.0
    assert module.compare_forms(parts, options) == rows
    assert len(measured) == 7, "what is finished is not measured again"


def test_where_no_form_keeps_generation_intact_the_nearest_is_chosen(study: Any) -> None:
    found = {"control": {"fd": 10.0}, "near": {"fd": 11.0, "linear": 0.1}, "far": {"fd": 20.0, "linear": 0.9}}
    assert study("mage_c").choose(found) == "near"


REQUESTS = {  # words of a call -> what is in OUT was made with other ones
    "everything": ("--data-root x --scale trial", {"scale": "cpu"}),
    "precision": ("--steps 5", {"steps": "1000"}),
    "tokenizers": ("--data-root x --set seed=1", {"set": ""}),
    "representations": ("--data-root x --tokenizer x --minutes 5", {"minutes": "20.0"}),
    "mage_c": ("--data-root x --model new --tokens x", {"model": "old"}),
    "adaptation": ("--data-root x --model new", {"model": "old"}),
    "adapt": ("--minutes 5 --model new", {"data mnist5k": "other"}),
    "generation": ("--model new --set seed=1", {"set": "seed=2"}),
    "decoder/mnist5k": ("--model digits --samples 5", {"samples": "2000"}),
    "reuse": ("--model digits", {"model": "cifar10"}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_what_another_request_made_is_not_taken_over_under_the_new_command(
    study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    script, _, inside = name.partition("/")
    words, before = REQUESTS[name]
    (tmp_path / inside).mkdir(exist_ok=True)
    (tmp_path / inside / "request.json").write_text(json.dumps(before))
    monkeypatch.setattr(subprocess, "run", None)
    out = ["--out", str(tmp_path), "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [f"{script}.py", *words.split(), *out])
    wrong = next(iter(before))
    with pytest.raises(SystemExit, match=f"was made with .*{wrong} .*, not .*choose another --out"):
        study(script).main()


def test_an_earlier_request_that_stated_less_is_still_taken_over(study: Any, tmp_path: Path) -> None:
    choices = study("choices")
    (tmp_path / "request.json").write_text('{"command": "python x"}')
    choices.ask(tmp_path, {"command": "python x", "tokenizer": choices.place(tmp_path)})
    with pytest.raises(SystemExit, match="tokenizer"):
        choices.ask(tmp_path, {"command": "python x", "tokenizer": choices.place("digits")})
    assert json.loads((tmp_path / "request.json").read_text())["tokenizer"] == str(tmp_path.resolve())


def test_a_record_states_the_options_that_are_not_the_default_ones(study: Any) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    names, stated = ("counts", "rounds", "no_compile"), study("choices").stated
    assert stated(parser, parser.parse_args(["--counts", "1", "2"]), *names) == ""
    words = ["--counts", "3", "4", "--rounds", "7", "--no-compile"]
    assert stated(parser, parser.parse_args(words), *names) == " --counts 3 4 --rounds 7 --no-compile"


def test_settings_of_a_sampler_that_are_not_stated_are_the_published_ones(study: Any) -> None:
    published = study("choices").published
    own = SamplingConfig(revisions=2, top_p=0.5, guidance=3, token_temperature_end=0.1)
    found = changed_settings(own, published({"order": "halton", "token_temperature": 0.8}))
    paper = SamplingConfig()
    assert found == replace(paper, order="halton", token_temperature=0.8, token_temperature_end=0.8)


@pytest.fixture
def generation(study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """studies/generation.py with a model that has learned nothing. Distances are a table's: validation images like low
    temperatures, test images high ones.
    """
    script = study("generation")
    module = sys.modules["generation_study"]
    drawn: list[tuple[float, int]] = []
    looked: list[tuple[str, float, int]] = []

    def production(num: int, seed: int, batch: int, classes: tuple[int, ...], sampling: dict[str, Any]) -> Production:
        assert sampling["revisions"] in (0, 2), "what is not stated is as published"
        assert sampling["token_temperature_end"] == sampling["token_temperature"]
        drawn.append(
            (sampling["choice_temperature" if sampling["order"] == "confidence" else "token_temperature"], seed)
        )
        return Production(num, seed, batch, classes, sampling)

    def compare(seen: SeenImages, reference: Reference, extractor: str) -> SimpleNamespace:
        heat, seed = drawn[-1]
        looked.append((reference.name, heat, seed))
        distance = 100.0 + (heat if reference.name == "reference_validation" else -heat)
        return SimpleNamespace(metrics={"fd_efflite0": distance})

    mean = Extractor("mean", "mean", lambda pixels: Seen(pixels.float().flatten(1)[:, :4], None))
    monkeypatch.setattr(module, "build_extractor", lambda name, device: mean)
    monkeypatch.setattr(module, "Production", production)
    monkeypatch.setattr(module, "compare", compare)
    subject = replace(module.SUBJECTS["digits"], data="digits", steps=(2, 3))
    monkeypatch.setitem(module.SUBJECTS, "digits", subject)
    smoke = named("smoke")
    tuned = mage.build(smoke.model, tokenizer=smoke.tokenizer, precision="float32")
    tuned.recipe["sampling"] = {"revisions": 3, "top_k": 2, "token_temperature_end": 0.3}
    tuned.save(tmp_path / "model")
    options = argparse.Namespace(
        data="digits", data_root=None, model=tmp_path / "model", out=tmp_path, results=tmp_path, tag="", samples=2,
        large=2,
    )  # fmt: skip
    parts = Parts()
    monkeypatch.setattr(module, "Parts", lambda model, name, data_root: parts)
    return SimpleNamespace(script=script, study=module.Study(options), looked=looked, parts=parts)


def test_a_sampler_is_chosen_by_validation_images_without_opening_the_test_images(generation: SimpleNamespace) -> None:
    tried = [{"order": "confidence", "choice_temperature": value, "steps": 2} for value in (9.0, 3.0, 6.0)]
    assert generation.study.choose("base", tried) == tried[1]
    assert generation.study.sampler()["token_temperature"] == 0.9
    assert not generation.parts.asked
    assert {(name, seed) for name, _, seed in generation.looked} == {("reference_validation", 0)}


def test_only_chosen_samplers_reach_test_images_and_with_other_random_numbers(generation: SimpleNamespace) -> None:
    """Of five kinds at two numbers of steps: the lowest temperature of each, though test images prefer the highest."""
    found = generation.script.samplers(generation.study)
    tested = [(heat, seed) for name, heat, seed in generation.looked if name == "reference_test"]
    assert tested == [(heat, 1) for heat in (3.0, 3.0, 0.9, 0.9, 0.9, 0.9, 3.0, 3.0, 6.0, 6.0)]
    assert found["fd_1k.confidence.steps2"] == 97.0, "what test images say of it is reported"


def test_a_guidance_is_chosen_by_the_samples_that_chose_and_reported_of_others(
    generation: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While choosing, guidance 2 has the best accuracy; of the samples that are reported, guidance 4."""
    study = generation.study
    study.models["classes"] = study.base
    accuracy = {"validation": {0.0: 0.1, 0.5: 0.2, 1.0: 0.3, 2.0: 0.9, 4.0: 0.4}}
    accuracy["test"] = {0.0: 0.11, 0.5: 0.21, 1.0: 0.31, 2.0: 0.5, 4.0: 0.99}

    def measured(model: str, sampling: dict[str, Any], num: int, split: str, by_class: bool) -> dict[str, float]:
        return {"fd": 1.0, "accuracy": accuracy[split][sampling["guidance"]]}

    monkeypatch.setattr(study, "_measure", measured)
    found = generation.script.guidance(study)
    assert found["class_accuracy_guided"] == 0.5
    assert found["class_accuracy"] == 0.11


def test_a_left_out_class_is_in_no_image_that_training_reads(study: Any) -> None:
    module, everything = study("left_out"), load_dataset("digits")
    smoke = named("smoke")
    model = mage.build(smoke.model, tokenizer=smoke.tokenizer, precision="float32")
    parts = module.Parts(model, "digits", 3, None)
    assert 3 not in parts.train.labels
    assert 3 not in parts.known.labels
    assert set(parts.new.labels) == {3}
    assert len(parts.train) + len(parts.known) + len(parts.new) == len(everything)
    known, new = parts.test()
    assert 3 not in known.labels
    assert set(new.labels) == {3}
    assert len(known) + len(new) == len(load_dataset("digits", split="test"))
    assert len(load_dataset(module.register("digits", 3))) == len(parts.train) + len(parts.known)


def test_settings_of_surprise_are_chosen_by_other_left_out_classes(study: Any) -> None:
    """Class 4 itself prefers other settings by far; it has no say in its own."""
    module = study("surprise")
    rows = {name: {method: dict.fromkeys(names, 0.5) for method, names in module.SETTINGS.items()} for name in "345"}
    wanted = {"surprise": "parts8.draws1.error.max", "knn_features": "class.k20", "knn_pixels": "k1"}
    for method, best in (wanted | {"reconstruction": "top"}).items():
        rows["3"][method][best] = rows["5"][method][best] = 0.6
        rows["4"][method][module.SETTINGS[method][0]] = 1.0
    assert module.choose(rows, "4") == wanted | {"reconstruction": "top"}
    alone = module.choose({"4": rows["4"]}, "4")
    assert alone == {method: names[0] for method, names in module.SETTINGS.items()}, "a class alone has no others"


def test_the_librarys_own_settings_of_surprise_are_among_those_compared(study: Any) -> None:
    assert Scoring() in study("surprise").SURPRISE.values()


def test_distance_to_neighbours_is_the_mean_of_the_nearest(study: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    train, queries = (torch.rand(count, 3, generator=generator) for count in (30, 4))
    found = study("surprise").nearest(train, queries, 3)
    for query, distance in zip(queries, found, strict=True):
        own = sorted(float((query - row).square().sum()) ** 0.5 for row in train)
        assert float(distance) == pytest.approx(sum(own[:3]) / 3, rel=1e-4)


def test_images_of_all_classes_are_compared_though_data_sets_are_sorted_by_class(
    study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = study("surprise")
    monkeypatch.setattr(module, "MOST", 10)
    monkeypatch.setattr(module, "MOST_NORMAL", 10)
    monkeypatch.setattr(module, "MOST_NEIGHBOURS", 10)
    pixels = torch.zeros(50, 1, 8, 8, dtype=torch.uint8)
    data = ArrayDataset("sorted", pixels, np.repeat(np.arange(10), 5), tuple("0123456789"))
    asked: list[ImageDataset] = []

    class Watched(module.Scorer):  # type: ignore[misc, name-defined]  # a module that was loaded from a file
        def score(self, dataset: ImageDataset, method: str, name: str) -> torch.Tensor:
            asked.extend([dataset, self._train, self._usual])
            return torch.zeros(len(dataset))

    smoke = named("smoke")
    scorer = Watched(mage.build(smoke.model, tokenizer=smoke.tokenizer), data)
    module.validate(scorer, data, data)
    module.judge(scorer, data, data, {"surprise": "any"})
    assert all(dataset.labels.tolist() == list(range(10)) for dataset in asked)


def test_test_images_of_left_out_classes_are_opened_after_the_choice(
    study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Preparing reads no test images; what was measured is measured again only for other settings."""
    module, helper = study("surprise"), sys.modules["left_out"]
    smoke = named("smoke")
    model = mage.build(smoke.model, tokenizer=smoke.tokenizer, precision="float32")
    monkeypatch.setitem(module.SUBJECTS, "digits", helper.Subject("smoke", "digits", (3, 4), ()))
    monkeypatch.setattr(module, "train", lambda *arguments: model)
    monkeypatch.setattr(module.mage, "load", lambda path, **more: model)
    monkeypatch.setattr(module, "read_log", lambda path: [{"seconds": 1.0}])
    opened: list[str] = []

    def load_dataset(name: str, *, split: str = "train", **more: Any) -> ImageDataset:
        opened.append(split)
        return images_called(f"{name} {split}", 100)

    monkeypatch.setattr(helper, "load_dataset", load_dataset)
    few = {"surprise": module.SETTINGS["surprise"][:3], "knn_features": ("mean.k1", "class.k5")}
    monkeypatch.setattr(module, "SETTINGS", module.SETTINGS | few)
    work = module.Study("digits", argparse.Namespace(out=tmp_path, data_root=None, device="cpu", set=[]))
    for number in (3, 4):
        work.prepare(number)
    assert "test" not in opened
    metrics = module.report(work, []).metrics
    assert "test" in opened
    assert all(0 <= value <= 1 for value in metrics.values())
    assert metrics["digits.mean.surprise"] == pytest.approx(
        (metrics["digits.3.surprise"] + metrics["digits.4.surprise"]) / 2
    )
    opened.clear()
    again = module.report(work, ["seed=1"])
    assert again.metrics == metrics
    assert again.command.endswith("--set seed=1")
    assert not opened, "what is finished is not measured again"


@pytest.mark.parametrize(("costs", "expected"), [({2: 1.01, 4: 1.02, 8: 1.5}, 4), ({2: 1.03, 4: 1.2, 8: 1.3}, 1)])
def test_the_largest_reuse_within_the_tolerance_is_recommended(
    study: Any, costs: dict[int, float], expected: int
) -> None:
    reuse = study("reuse")

    class Measured(reuse.Study):  # type: ignore[misc, name-defined]  # a module that was loaded from a file
        def __init__(self) -> None:
            self.asked: list[str] = []

        def distance(self, sampling: dict[str, Any], split: str) -> float:
            self.asked.append(split)
            return 100 * costs.get(sampling.get("reuse", 1), 1.0)

    measured = Measured()
    assert measured.recommend({"order": "halton"}, {"order": "confidence"}) == expected
    assert set(measured.asked) == {"validation"}


def test_temperature_and_share_of_reused_passes_are_those_of_the_least_distance(study: Any) -> None:
    reuse = study("reuse")

    class Measured(reuse.Study):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            pass

        def distance(self, sampling: dict[str, Any], split: str) -> float:
            assert split == "validation"
            return abs(sampling["token_temperature"] - 0.9) + abs(sampling["encoder_keep"] - 0.25)

    measured = Measured()
    warm = measured.choose_temperature("halton")
    assert (warm["token_temperature"], warm["encoder_keep"]) == (0.9, 1.0)
    assert measured.choose_share(warm)["encoder_keep"] == 0.25


def test_frames_of_a_game_are_written_from_worlds_of_their_own(
    study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("crafter")
    module = study("crafter_frames")
    monkeypatch.setattr(module, "WORLDS", {"train": range(2), "test": range(1000, 1001)})
    monkeypatch.setattr("sys.argv", ["crafter_frames.py", "--out", str(tmp_path), "--frames", "3"])
    module.main()
    train, test = (load_dataset(str(tmp_path), split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 3)
    pictures = torch.stack([data.load(index) for data in (train, test) for index in range(len(data))])
    assert pictures.shape == (9, 3, 64, 64)
    assert len(torch.unique(pictures.flatten(1), dim=0)) > 6, "the explorer walks on"


def test_gain_is_measured_by_the_number_of_new_images(
    study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each count trains on that many images and is measured on the same test images; the last count is of all."""
    module = study("adapt")
    smoke = named("smoke")
    model = mage.build(smoke.model, tokenizer=smoke.tokenizer, precision="float32")
    model.save(tmp_path / "model")
    asked: list[tuple[int, int, float]] = []

    def adapt(model: mage.Mage, data: str, launch: Any, *, minutes: float) -> Adapted:
        asked.append((len(load_dataset(data)), len(load_dataset(data, split="test")), minutes))
        mage.load(tmp_path / "model").save(launch.out / "model")
        (launch.out / "adapt.json").write_text('{"result": {"seconds": {"pretrain": 60.0}}}')
        loss = 5 - len(asked)
        old, new = (Measured({"masked_loss": loss, "knn_accuracy": 0.5, "psnr_db": 20.0}) for loss in (5.0, loss))
        new.details["knn_accuracy"] = {"interval": [0.4, 0.6]}
        return Adapted("kept", TokenizerCheck(3, 20.0, 15.0), old, new, 10, {"pretrain": 60.0}, (), ())

    monkeypatch.setattr(module.runs, "adapt", adapt)
    words = ["adapt.py", "--model", str(tmp_path / "model"), "--data", "digits", "--minutes", "5", "--device", "cpu"]
    words += ["--counts", "100", "2000", "--samples", "8", "--out", str(tmp_path), "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    module.main()
    assert asked == [(100, 297, 5.0), (1500, 297, 5.0)]
    metrics = json.loads((tmp_path / "adapt_digits.json").read_text())["metrics"]
    assert metrics["digits.100.after.masked_loss"] == 4
    assert metrics["digits.1500.after.masked_loss"] == 3
    assert metrics["digits.100.after.knn_accuracy_high"] == 0.6
    assert metrics["digits.100.before.fd_efflite0"] == pytest.approx(metrics["digits.1500.after.fd_efflite0"])
    assert (tmp_path / "adapt_digits.png").is_file()
    rows = tables().adapted(metrics)
    assert "| digits | 1,500 | kept | 20.0 → 20.0 | 5.00 → 3.00 |" in rows[-1]
    assert rows[-1].endswith("| 50.0% → 50.0% (40 to 60) |")


def tables() -> ModuleType:
    """docs/tables.py."""
    found = importlib.util.spec_from_file_location("tables", STUDIES.parent / "docs" / "tables.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_a_method_is_evaluated_when_it_is_fine_tuned_too(study: Any, tmp_path: Path) -> None:
    """The command keeps what it has measured before it fine-tunes, where it may be stopped."""
    module, path = study("representations"), tmp_path / "representations.json"
    assert not module.evaluated(tmp_path)
    path.write_text(json.dumps({"metrics": {"knn_accuracy": 0.5}}))
    assert not module.evaluated(tmp_path)
    path.write_text(json.dumps({"metrics": {"knn_accuracy": 0.5, "finetune_accuracy": 0.6}}))
    assert module.evaluated(tmp_path)


def test_a_packaged_model_is_trained_rounded_measured_and_described(
    study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a recipe of a few steps; a second call repeats no training and finds the same weights."""
    module = study("packaged")
    trained: list[str] = []

    def fitted(recipe: Any, launch: Any, name: str, size: int, minutes: float, *, continued: bool, changes: Any) -> Any:
        trained.append(f"{name} {minutes:.2f}{' continued' if continued else ''}")
        return recipe

    monkeypatch.setattr(module, "fitted_recipe", fitted)
    monkeypatch.setattr(module.packaged, "FOLDER", tmp_path / "package")
    plan = module.Plan("smoke", "toys", "digits of scikit-learn", "MIT", ("It is a toy.",), module.CONDITIONS)
    monkeypatch.setitem(module.PLANS, "toy", plan)
    words = ["packaged.py", "--model", "toy", "--minutes", "10", "--out", str(tmp_path / "runs"), "--device", "cpu"]
    words += ["--samples", "20", "--tuning-samples", "10", "--results", str(tmp_path / "results"), "--install"]
    monkeypatch.setattr("sys.argv", words)
    module.main()
    assert trained == ["tokenizer_training 3.50", "pretraining 6.50"]
    card = module.packaged.card_of("toy")
    folder = tmp_path / "package" / "toy"
    assert card.weights == module.weights_hash(folder)
    assert card.record == json.loads((tmp_path / "results" / "models" / "toy.json").read_text())
    distances = {f"fd_efflite0_test20{suffix}" for suffix in ("_none", "_classes", "_restored", "_real")}
    new = {"authentic_share", "authenticity_efflite0_train20_none", "authenticity_efflite0_train297_real"}
    measured = {*distances, *new, "linear_probe_accuracy", "class_accuracy", "class_confident_share"}
    measured |= {"control_surprise"}
    assert measured <= set(card.record["metrics"])
    assert len(read_examples("toy")[0]) == len(card.examples) == 64
    guidances = json.loads((tmp_path / "runs" / "toy" / "guidance.json").read_text())
    chosen = mage.load(tmp_path / "package" / "toy").sampling.guidance
    real = guidances.pop("real")
    least = min(guidances.values())
    about = [float(name) for name, value in guidances.items() if value <= least + 0.1 * abs(least - real)]
    assert chosen == max(about)
    pictures = {path.stem for path in (tmp_path / "results" / "models" / "toy").glob("*.png")}
    assert pictures == {"samples", "edits", "nearest"}
    assert "validation images" in card.record["protocol"]["validation"]
    assert "--tuning-samples 10" in card.record["command"]
    module.main()
    assert len(trained) == 2
    assert module.packaged.card_of("toy").weights == card.weights
    monkeypatch.setattr("sys.argv", [*words[:4], "20", *words[5:]])
    with pytest.raises(SystemExit, match=r"--minutes 10 .*, not .*--minutes 20 .*: choose another --out"):
        module.main()
    again = [*words[:3], "--retune", *words[5:6], str(tmp_path / "again"), *words[7:]]
    monkeypatch.setattr("sys.argv", again)
    module.main()
    retuned = module.packaged.card_of("toy")
    assert (len(trained), retuned.weights) == (2, card.weights)
    assert retuned.record["command"].endswith("--model toy --retune --tuning-samples 10 --samples 20")
    schedule = retuned.record["protocol"]["training"]
    assert schedule.startswith(card.record["protocol"]["training"] + " (" + card.record["command"])
    options = SimpleNamespace(out=tmp_path, device="cpu", data_root=None, tokenizer=None, retune=True)
    options.remeasure = options.no_tuning = False
    twice = module.Packaging("toy", plan, options).trainings()
    assert "; ".join(f"{part}: {words}" for part, (_, words) in twice.items()) == schedule
    assert json.loads((tmp_path / "again" / "toy" / "tuning.json").read_text())["trials"]
    more = [*words[:6], str(tmp_path / "more"), *words[7:], "--tokenizer", str(folder), "--init-from", str(folder)]
    more.append("--tuning=--order halton --reuse 4")
    monkeypatch.setattr("sys.argv", more)
    module.main()
    assert trained[2:] == ["pretraining 10.00 continued"]
    continued = module.packaged.card_of("toy").record
    assert "--tuning '--order halton --reuse 4'" in continued["command"]
    sampling = mage.load(folder).sampling
    assert (sampling.order, sampling.reuse) == ("halton", 4)
    assert "from the weights of 12 steps of 16 images (python" in continued["protocol"]["training"]
    chain = module.training_of(tmp_path / "more" / "toy" / "mage", "mage")[1]
    assert continued["protocol"]["training"].endswith(chain), "a run that goes on from this one tells of both"
    assert continued["timings"]["tokenizer"] == card.record["timings"]["tokenizer"]
    plans = [*words[:3], "--retune", "--no-tuning", *words[5:6], str(tmp_path / "plans"), *words[7:]]
    monkeypatch.setattr("sys.argv", plans)
    module.main()
    kept = module.packaged.card_of("toy").record
    assert kept["command"] == "python studies/packaged.py --model toy --retune --no-tuning --samples 20"
    assert kept["protocol"]["validation"] == module.KEPT
    assert mage.load(folder).sampling == module.resolve(module.Choice(recipe="smoke", changes=plan.changes)).sampling
    config = json.loads((folder / "config.json").read_text())
    shares = config["notes"].pop("class_shares")
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "checksum"}))
    same = [*words[:3], "--remeasure", *words[5:6], str(tmp_path / "same"), *words[7:]]
    monkeypatch.setattr("sys.argv", same)
    module.main()
    measured_again = module.packaged.card_of("toy").record
    assert measured_again["command"] == "python studies/packaged.py --model toy --remeasure --samples 20"
    assert measured_again["protocol"] == kept["protocol"]
    assert mage.load(folder).notes["class_shares"] == shares, "those of older models are added"
    assert mage.load(folder).sampling == module.resolve(module.Choice(recipe="smoke", changes=plan.changes)).sampling
    monkeypatch.setattr("sys.argv", more)
    module.main()
    decoder = [*words[:3], "--decoder", *words[3:6], str(tmp_path / "decoder"), *words[7:]]
    monkeypatch.setattr("sys.argv", decoder)
    module.main()
    assert trained[3:] == ["tokenizer_training 10.00 continued"]
    tuned = module.packaged.card_of("toy")
    assert tuned.weights != module.weights_hash(tmp_path / "more" / "toy" / "packaged" / "toy")
    assert tuned.record["protocol"]["training"] == continued["protocol"]["training"].replace(
        "; mage", ", then 12 steps of 16 images for its decoder, up to 50% of their tokens redrawn; mage"
    )
    assert tuned.record["command"].endswith("--minutes 10 --decoder --tuning-samples 10 --samples 20")
    study_of_decoders = study("decoder")
    words = ["decoder.py", "--model", str(folder), "--samples", "20", "--steps", "2", "--device", "cpu"]
    words += ["--out", str(tmp_path / "decoders"), "--results", str(tmp_path / "decoders")]
    monkeypatch.setattr("sys.argv", words)
    study_of_decoders.main()
    path = tmp_path / "decoders" / "decoder_digits.json"
    first = json.loads(path.read_text())
    names = [f"{decoder}.{tokens}" for decoder in ("before", "redrawn0", "redrawn0.5", "redrawn1")
             for tokens in ("free", "classes", "restored")]  # fmt: skip
    assert list(first["metrics"]) == names
    assert len(set(first["metrics"].values())) == len(names), "every decoder makes other images"
    study_of_decoders.main()
    assert json.loads(path.read_text())["metrics"] == first["metrics"], "nothing is trained twice"
    assert tables().decoders(first["metrics"])[2].startswith("| as it is | ")
    limits = study("limits")
    words = ["limits.py", "--model", str(folder), "--samples", "20", "--results", str(tmp_path / "limits")]
    monkeypatch.setattr("sys.argv", [*words, "--device", "cpu"])
    limits.main()
    record = json.loads((tmp_path / "limits" / "limits_toy.json").read_text())
    assert record["command"] == "python studies/limits.py --model toy --samples 20"
    assert set(record["metrics"]) == {
        *("real.fd", "restored.fd", "train.nats", "validation.nats"),
        *(f"redrawn{share:g}.fd" for share in limits.SHARES),
    }
    assert "tokens redrawn" in (tmp_path / "limits" / "limits_toy.svg").read_text()


def test_distances_of_a_packaged_model_are_not_replaced_by_those_of_its_pictures(study: Any) -> None:
    """With as many samples both have the same names."""
    measured = {"fd_efflite0_test500": 1.0}
    shown = {"fd_efflite0_test500": 2.0, "psnr_db": 20.0}
    assert measured | study("packaged").without(shown, measured) == {"fd_efflite0_test500": 1.0, "psnr_db": 20.0}


def test_plans_of_packaged_models_are_recipes_with_and_without_classes(study: Any) -> None:
    module = study("packaged")
    for name, plan in module.PLANS.items():
        recipe = module.resolve(module.Choice(recipe=plan.recipe, changes=plan.changes))
        assert recipe.model.class_input == ("decoder" if name == "digits" else "encoder"), name
        assert recipe.method.conditions.source == "labels", name
    assert recipe.name == "photos64"
    assert recipe.tokenizer.grid == (16, 16)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.py")), ids=lambda path: path.stem)
def test_every_study_imports_what_the_library_has(study: Any, path: Path) -> None:
    study(path.stem)


@pytest.fixture
def faults(study: Any, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """studies/faults.py, with its inputs, and kills at every kind of place."""
    module = study("faults")
    module.make_inputs(tmp_path)
    kills = sys.modules["kills"]
    scenarios = {scenario.name: scenario for scenario in module.SCENARIOS}

    def measure(name: str, *instants: Any) -> Any:
        given = iter(instants)
        return module.measure(scenarios[name], tmp_path, len(instants), random.Random(0), lambda *drawn: next(given))

    with module.small_pieces():
        yield SimpleNamespace(measure=measure, at=kills.Instant, kills=kills)


def test_killed_commands_lose_nothing(faults: SimpleNamespace) -> None:
    """A few of the kills of the study, of commands that take little time: at the start, and in the midst of writes."""
    at = faults.at
    for name, instants in {
        "tokenize": (at(1, "inside"), at(9, "inside"), at(14, "after"), at(seconds=0.02)),
        "convert over a model": (at(1, "after"), at(5, "before"), at(8, "after")),
        "generate tar": (at(4, "inside"), at(9, "before")),
    }.items():
        found = faults.measure(name, *instants)
        assert found.killed == len(instants)
        assert found.ended == 0, "each is killed before its end"
        assert found.problems == []


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    """A few of the inputs of the study, for every reader."""
    pytest.importorskip("diffusers", reason="one of the readers reads its files")
    words = [sys.executable, str(STUDIES / "fuzz.py"), "--inputs", "8", "--results", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(STUDIES.parent), "OMP_NUM_THREADS": "1"}
    subprocess.run([*words, "--out", str(tmp_path / "out")], env=environment, check=True, capture_output=True)
    metrics = json.loads((tmp_path / "fuzz.json").read_text())["metrics"]
    found = sorted((tmp_path / "out").glob("found/*.txt"))
    assert found == [], found[0].read_text()
    assert metrics["undocumented"] == metrics["hangs"] == 0
    assert metrics["inputs"] >= 8 * 26
    assert metrics["largest_memory_gb"] < 2


@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize(
    ("read", "undocumented", "hangs"),
    [
        (lambda: None, 0, 0),
        (lambda: int("x"), 0, 0),
        (lambda: {}["x"], 3, 0),
        (lambda: sys.exit(0), 3, 0),
        (lambda: time.sleep(60), 0, 3),
        (lambda: os._exit(1), 3, 0),
        (lambda: os.kill(os.getpid(), 9), 3, 0),
    ],
)
def test_the_study_of_damaged_files_finds_what_a_reader_must_not_do(
    study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read: Any, undocumented: int, hangs: int
) -> None:
    module = study("fuzz")
    monkeypatch.setattr(module, "PATIENCE", 2.0 if hangs else 60.0)  # a child may start late on a busy machine
    parent = os.getpid()
    (tmp_path / "file").write_bytes(b"valid")
    reader = module.Reader(
        "any", tmp_path / "file", lambda data, rng: rng.randbytes(8), lambda: read() if os.getpid() != parent else None
    )
    found = module.fuzz(reader, 3, 0, tmp_path / "out")
    assert (found.inputs, found.undocumented, found.hangs) == (3, undocumented, hangs)
    assert len(list(tmp_path.glob("out/found/*.txt"))) == undocumented + hangs
    assert (tmp_path / "file").read_bytes() == b"valid"


def test_the_study_of_kills_finds_writes_that_are_not_atomic(
    faults: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "write_bytes", lambda path, data: Path(path).write_bytes(data))
    found = faults.measure("tokenize array", *(faults.at(call, "inside") for call in range(1, 9)))
    assert found.counts["unreadable"] > 0
    assert found.counts["refused"] > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of boto3's and aiohttp's own
def test_shards_in_a_store_are_seen_once_by_an_epoch_that_is_killed_and_goes_on(
    study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two processes with a worker each read what one with two had begun."""
    for package in ("moto", "flask", "s3fs", "boto3"):
        pytest.importorskip(package, reason="the object store of this study takes moto[s3,server] and s3fs")
    module, out = study("shards"), tmp_path / "shards.json"
    monkeypatch.setattr(module, "SHAPES", ((1, 2), (2, 1)))
    monkeypatch.setenv("PYTHONPATH", str(STUDIES.parent))
    words = ["--images", "600", "--batch-size", "20", "--kills", "1", "--shard-bytes", "60000", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["shards.py", *words])
    clients = importlib.import_module("s3fs").S3FileSystem
    clients.clear_instance_cache()
    with mock.patch.dict(os.environ):  # takes back what main sets for its children
        module.main()
    clients.clear_instance_cache()
    metrics = json.loads(out.read_text())["metrics"]
    assert metrics["images"] == 600
    assert metrics["shards"] > 16, "a window does not hold them all"
    told = ("kills", "seen_once", "missing", "repeated", "done_again_alike", "order_of_an_undisturbed_epoch")
    assert {name: metrics[name] for name in told} == {
        "kills": 1, "seen_once": 1, "missing": 0, "repeated": 0, "done_again_alike": 1,
        "order_of_an_undisturbed_epoch": 1,
    }  # fmt: skip
