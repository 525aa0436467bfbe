"""What commands do when nothing is wrong: files, JSON, exit codes, and the same pictures as the library gives."""

import argparse
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import mage
from mage import images
from mage.cli import tune_sampler
from mage.cli.main import COMMANDS, main
from mage.data.datasets import ImageDataset
from mage.data.transforms import TransformConfig
from mage.evaluation.features import Features, extract_features
from mage.evaluation.lars_probe import RANDOM_CROPS
from mage.recipes import named
from mage.recipes.resolve import from_yaml
from mage.runs import production
from mage.store import packaged
from mage.training.checkpoint import newest_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
Command = Callable[..., SimpleNamespace]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A tokenizer and a model, trained in seconds by the commands themselves."""
    root = tmp_path_factory.mktemp("run")
    words = [sys.executable, "-m", "mage"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def call(*arguments: str) -> dict[str, object]:
        done = subprocess.run([*words, *arguments, "--json"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        result: dict[str, object] = json.loads(done.stdout)  # --json: one object and nothing else
        return result

    tokenizer = call("train-tokenizer", "--recipe", "smoke", "--out", f"{root}/tokenizer")
    tokens = call("tokenize", "--tokenizer", f"{root}/tokenizer", "--views", "2", "--out", f"{root}/tokens")
    trained = call("pretrain", "--tokenizer", f"{root}/tokenizer", "--data", f"{root}/tokens", "--out", f"{root}/model")
    return SimpleNamespace(root=root, tokenizer=tokenizer, tokens=tokens, trained=trained)


def test_training_reports_what_it_measured(run: SimpleNamespace) -> None:
    assert run.tokenizer["steps"] == 12
    assert 0 < run.tokenizer["metrics"]["codes_used"] <= 1
    assert run.tokens["images"] == 1425, "5 % of the training images are held out"
    assert run.tokens["views"] == 2
    assert run.trained["metrics"]["valid/loss"] > 0
    assert mage.load(run.root / "model").transformer.grid == (4, 4)


def test_online_training_needs_no_cache(run: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    words = ("--tokenizer", run.root / "tokenizer", "--recipe", "smoke", "--out", tmp_path / "model")
    result = command("pretrain", *words, "--online", "--json")
    assert result.code == 0, result.err
    assert not (tmp_path / "model" / "tokens").exists()
    assert mage.load(tmp_path / "model").generate(1, steps=2).shape == (1, 1, 8, 8)


def test_generate_writes_a_grid_and_each_image(run: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    words = ("--model", run.root / "model", "--seed", 3, "--precision", "float32")
    assert command("generate", *words, "--num", 5, "--batch-size", 2, "--out", tmp_path / "a").code == 0
    assert command("generate", *words, "--num", 3, "--batch-size", 3, "--out", tmp_path / "b").code == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [*(f"{index:06d}.png" for index in range(5)), "grid.png", "settings.json"]
    for index in range(3):  # image k of a seed is the same whatever --num and --batch-size
        assert (tmp_path / "a" / f"{index:06d}.png").read_bytes() == (tmp_path / "b" / f"{index:06d}.png").read_bytes()
    expected = mage.load(run.root / "model", precision="float32").generate(3, seed=3)
    found = images.load_image(tmp_path / "b" / "000002.png", channels=1)
    assert torch.equal(found, images.to_uint8(expected[2]))
    assert command("generate", *words, "--num", 2, "--encoder-keep", 0.5, "--out", tmp_path / "c").code == 0
    assert len(list((tmp_path / "c").glob("0*.png"))) == 2


def test_a_finished_folder_is_neither_generated_again_nor_mixed(
    run: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    words = ("generate", "--model", run.root / "model", "--num", 4, "--batch-size", 2, "--out", tmp_path)
    assert command(*words).code == 0
    (tmp_path / "000001.png").unlink()
    before = (tmp_path / "000002.png").stat().st_mtime_ns
    assert command(*words).code == 0
    assert (tmp_path / "000001.png").is_file()
    assert (tmp_path / "000002.png").stat().st_mtime_ns == before
    other = command(*words, "--seed", 1)
    assert other.code == 2
    assert "another seed" in other.err
    assert command(*words, "--seed", 1, "--overwrite").code == 0
    assert (tmp_path / "000002.png").stat().st_mtime_ns != before


def test_several_processes_make_the_same_shards(run: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    words = (
        "generate",
        "--model",
        run.root / "model",
        "--num",
        10,
        "--batch-size",
        2,
        "--to",
        "tar",
        "--shard-size",
        4,
    )
    words = (*words, "--precision", "float32")
    assert command(*words, "--out", tmp_path / "one").code == 0
    result = command(*words, "--out", tmp_path / "two", "--processes", 2, "--json")
    assert result.code == 0, result.err
    for part in (0, 1):
        result = command(*words, "--out", tmp_path / "parts", "--part", part, 2, "--json")
        assert json.loads(result.out)["missing_units"] == 1 - part
    shards = ["000000.tar", "000004.tar", "000008.tar"]
    for folder in ("one", "two", "parts"):
        assert sorted(path.name for path in (tmp_path / folder).glob("*.tar")) == shards
        for name in (*shards, "grid.png"):
            assert (tmp_path / folder / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_generated_images_are_measured_from_every_source(
    run: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    words = ("--model", run.root / "model", "--num", 12, "--batch-size", 4, "--precision", "float32")
    assert command("generate", *words, "--out", tmp_path / "png").code == 0
    assert command("generate", *words, "--to", "features", "--shard-size", 8, "--out", tmp_path / "features").code == 0
    measure = ("evaluate", "generation", "--data", "digits", "--batch-size", 4, "--precision", "float32")
    reference = tmp_path / "test.npz"
    first = command(
        *measure,
        "--samples",
        run.root / "model",
        "--num",
        12,
        "--save-reference",
        reference,
        "--out",
        tmp_path,
        "--json",
    )
    assert first.code == 0, first.err
    metrics = json.loads(first.out)["metrics"]
    assert {"fd_efflite0_test12", "is_efflite0_test12", "kd_efflite0_test12", "fd_efflite0_test12_real"} <= set(metrics)
    assert json.loads((tmp_path / "generation.json").read_text())["metrics"] == metrics
    for source in ("png", "features"):
        again = command(
            *measure, "--samples", tmp_path / source, "--reference", reference, "--split", "train", "--json"
        )
        found = json.loads(again.out)["metrics"]
        assert found["fd_efflite0_test12"] == pytest.approx(metrics["fd_efflite0_test12"], rel=1e-4)
        assert found["kd_efflite0_test12"] == pytest.approx(metrics["kd_efflite0_test12"], rel=1e-3)
    refused = command(*measure, "--samples", tmp_path / "png", "--steps", 3)
    assert refused.code == 2
    assert "settings of the sampler would change nothing" in refused.err
    refused = command(*measure, "--samples", tmp_path / "png", "--reference", reference, "--save-reference", "x.npz")
    assert refused.code == 2
    text = command(*measure, "--samples", tmp_path / "png")
    assert "fd_efflite0_test12 " in text.out
    assert "12 images against 297 of test" in text.out


def test_a_tuned_sampler_is_stored_with_its_model(run: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    mage.load(run.root / "model").save(tmp_path / "model")
    words = ("tune-sampler", "--model", tmp_path / "model", "--data", "digits", "--num", 20, "--try-steps", 2)
    result = command(*words, "--try-orders", "halton", "--top-p", 0.9, "--out", tmp_path / "all.json", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["metric"] == "fd_efflite0_validation20"
    assert "digits validation has 75 images" in found["warnings"][0]
    assert "partly a lucky one" in found["warnings"][0]
    assert 0 < found["real"] < found["value"]
    assert found["trials"] == json.loads((tmp_path / "all.json").read_text())["trials"]
    model = mage.load(tmp_path / "model")
    assert (model.sampling.order, model.sampling.steps, model.sampling.top_p) == ("halton", 2, 0.9)
    assert model.sampling.token_temperature == found["best"]["token_temperature"]
    assert model.notes["sampling_tuned"]["metric"] == "fd_efflite0_validation20"
    assert (model.notes["sampling_tuned"]["data"], model.notes["sampling_tuned"]["split"]) == ("digits", "validation")
    kept = mage.load(run.root / "model").transformer.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.transformer.state_dict().items())
    seen: list[dict[str, object]] = []
    real = production.Production
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_sampler, "Production", lambda *given: seen.append(given[4]) or real(*given))
        assert command(*words, "--try-orders", "confidence", "--no-store").code == 0
    assert seen[0] == {"order": "confidence", "steps": 2, "choice_temperature": seen[0]["choice_temperature"]} | {
        "token_temperature": 1.0, "encoder_keep": 1.0, "reuse": 1
    }, "nothing of an earlier search"  # fmt: skip
    refused = command(*words, "--metric", "authenticity")
    assert refused.code == 2
    assert "add --split train" in refused.err
    more = ("--try-orders", "random", "--metric", "recall", "--split", "test", "--no-store", "--json")
    score = json.loads(command(*words, *more).out)
    assert 0 <= score["value"] <= 1
    assert score["metric"] == "recall_efflite0_test20"
    assert "chosen on test images" in score["warnings"][0]
    assert mage.load(tmp_path / "model").sampling.order == "halton"


def test_classes_from_training_to_picture(run: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    words = ("--tokenizer", run.root / "tokenizer", "--recipe", "smoke", "--out", tmp_path / "run")
    assert command("pretrain", *words, "--set", "method.conditions.source=labels").code == 0
    model = ("--model", tmp_path / "run", "--precision", "float32")
    assert command("generate", *model, "--num", 12, "--class", "all", "--out", tmp_path / "all").code == 0
    assert command("generate", *model, "--num", 12, "--class", 3, 4, "--out", tmp_path / "two").code == 0
    with Image.open(tmp_path / "two" / "grid.png") as grid:
        assert grid.size == (96 + 6 * (64 + 2) + 2, 2 * (64 + 4)), "two rows with their classes on the left"
    assert command("generate", *model, "--num", 1, "--class", 3, "--guidance", 2, "--out", tmp_path / "three").code == 0
    bad = command("generate", *model, "--class", "ship", "--out", tmp_path / "bad")
    assert bad.code == 2
    assert "there is no class 'ship'; classes are 0, 1, 2" in bad.err
    assert not (tmp_path / "bad").exists()
    images.save_png(tmp_path / "small.png", torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)))
    edit = ("edit", *model, "--image", tmp_path / "small.png", "--out", tmp_path / "out.png")
    result = command(*edit, "--box", 0, 0, 3, 8, "--class", 3, 4, "--num", 2)
    assert result.code == 0
    assert "50.0% redrawn" in result.out, "whole tokens, which are two pixels wide"
    assert f"{tmp_path / 'out_sheet.png'}: before, marked, after" in result.out
    sheet = images.load_image(tmp_path / "out_sheet.png", channels=3)
    assert sheet.shape == (3, 24 + 320 + 4, 4 * (320 + 4)), "before, marked and two variants, 320 pixels wide each"
    assert not torch.equal(sheet[0], sheet[1]), "the mark has a colour"
    assert command(*edit, "--vary", 1, "--class", 3).code == 0
    with Image.open(tmp_path / "out_sheet.png") as pair:
        assert pair.size == (2 * (320 + 4), 24 + 320 + 4), "all of it was varied: nothing is marked"


def test_images_larger_than_the_models_keep_their_size(
    run: SimpleNamespace, disk: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    photo = disk.root / "photo.png"  # 20 x 30 pixels
    given = images.load_image(photo, channels=1)
    edit = ("edit", "--model", run.root / "model", "--image", photo, "--out", tmp_path / "out.png", "--full-size")
    result = command(*edit, "--box", 6, 6, 10, 9, "--grow", 1, "--json")
    assert result.code == 0, result.err
    changed = (images.load_image(tmp_path / "out.png", channels=1) != given)[0]
    assert changed[5:10, 5:11].any()
    changed[4:10, 4:12] = False
    assert not changed.any()
    assert json.loads(result.out)["seam_ratio"] > 0
    assert command(*edit, "--expand", 3, 0, 4, 0).code == 0
    with Image.open(tmp_path / "out.png") as wide:
        assert wide.size == (37, 20)


def test_a_picture_that_cannot_be_written_is_an_error(run: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    (tmp_path / "out" / "000002.png").mkdir(parents=True)
    result = command(
        "generate", "--model", run.root / "model", "--num", 5, "--batch-size", 2, "--out", tmp_path / "out"
    )
    assert result.code == 2
    assert "000002.png" in result.err
    assert not (tmp_path / "out" / "grid.png").exists()


def test_reconstruct_draws_one_row_per_ratio(
    run: SimpleNamespace, disk: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    photos = [disk.root / "photo.png", disk.root / "square.png"]
    out = tmp_path / "figure.png"
    ratios = ("0", "0.5", "0.95")
    result = command("reconstruct", "--model", run.root / "model", "--image", *photos, "--out", out)
    assert result.code == 0, result.err
    with Image.open(out) as all_rows:
        height = all_rows.height
    words = ("--model", run.root / "model", "--image", *photos, "--mask-ratio", *ratios, "--out", out)
    assert command("reconstruct", *words).code == 0
    with Image.open(out) as rows:
        assert rows.height / (1 + len(ratios)) == height / 11  # the original and ten ratios from 0 to 0.95
        size = rows.size
    assert command("reconstruct", *words[:3], *(photos * 6), *words[5:]).code == 0
    with Image.open(out) as blocks:
        assert blocks.height == 2 * size[1], "ten images in a row, the other two below"
        assert blocks.width < 96 + 11 * 66


def test_edit_keeps_what_is_not_marked(
    run: SimpleNamespace, disk: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    images.save_png(tmp_path / "small.png", torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)))
    given = images.load_image(tmp_path / "small.png", channels=1)
    words = ("--model", run.root / "model", "--image", tmp_path / "small.png", "--out", tmp_path / "out.png")
    assert command("edit", *words, "--box", 2, 2, 3, 3, "--paste").code == 0  # touches a token of 2 x 2
    changed = (images.load_image(tmp_path / "out.png", channels=1) != given)[0]
    assert changed[2:4, 2:4].any()
    changed[2:4, 2:4] = False
    assert not changed.any()
    images.save_png(tmp_path / "black.png", torch.zeros(1, 8, 8))
    assert command("edit", *words, "--mask", tmp_path / "black.png").code == 0
    assert torch.equal(images.load_image(tmp_path / "out.png", channels=1), given), "nothing marked: the image back"
    assert command("edit", *words, "--expand", 4, "--num", 3).code == 0
    with Image.open(tmp_path / "out.png") as variants:
        assert variants.size == (22, 22)  # two rows of two places, 8 pixels each, with margins of 2


def test_probe_and_knn_measure_the_same_images(run: SimpleNamespace, command: Command) -> None:
    results = {}
    for name in ("probe", "knn"):
        result = command(name, "--model", run.root / "model", "--data", "digits", "--json")
        assert result.code == 0, result.err
        results[name] = json.loads(result.out)
        assert (results[name]["train_images"], results[name]["test_images"]) == (1500, 297)
    assert results["probe"]["linear_probe_accuracy"] > 0.3  # chance is 0.1, and twelve steps are not nothing
    assert results["knn"]["knn_accuracy"] > 0.3


def test_a_probe_with_out_keeps_its_classifier_with_intervals_and_a_report(
    run: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    words = ("probe", "--model", run.root / "model", "--data", "digits", "--out", tmp_path / "classifier")
    result = command(*words)
    assert result.code == 0, result.err
    assert re.search(r"\d+\.\d % \(\d+\.\d to \d+\.\d %\) of 297 test images", result.out)
    assert "is taken for" in result.out
    (tmp_path / "classifier" / "notes.txt").write_text("mine")
    again = json.loads(command(*words, "--json").out)
    assert (tmp_path / "classifier" / "notes.txt").read_text() == "mine"
    low, high = again["interval"]
    assert low < again["linear_probe_accuracy"] < high
    assert sum(map(sum, again["confusion"])) == 297
    classifier = mage.load_classifier(tmp_path / "classifier")
    assert classifier.class_names == tuple("0123456789")
    stored = json.loads((tmp_path / "classifier" / "representations.json").read_text())
    assert stored["metrics"]["linear_probe_accuracy"] == again["linear_probe_accuracy"]
    page = (tmp_path / "classifier" / "report.html").read_text()
    assert "Linear probe, by class" in page
    assert f"({100 * low:.1f} to {100 * high:.1f})" in page


def test_a_folder_is_embedded_and_its_classes_are_predicted_once(
    run: SimpleNamespace, disk: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    folder, model = disk.root / "folder", run.root / "model"
    words = ("embed", folder, "--model", model, "--out", tmp_path / "features.csv")
    assert "features of 40 images" in command(*words).out
    again = json.loads(command(*words, "--json").out)
    assert (again["images"], again["computed"]) == (40, 0)
    lines = (tmp_path / "features.csv").read_text().splitlines()
    assert len(lines) == 41
    assert lines[1].startswith("a/0.png,a,")
    kept = command("probe", "--model", model, "--data", folder, "--out", tmp_path / "classifier")
    assert kept.code == 0, kept.err
    words = ("predict", folder, "--model", tmp_path / "classifier", "--out", tmp_path / "classes.csv")
    result = command(*words)
    assert "classes of 40 images" in result.out
    assert "as their sub-folders say: " in result.out
    found = json.loads(command(*words, "--json").out)
    rows = [line.split(",") for line in (tmp_path / "classes.csv").read_text().splitlines()[1:]]
    assert found["accuracy"] == sum(row[1] == row[4] for row in rows) / 40
    assert found["computed"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_classes_of_any_name_are_printed_and_predicted(
    disk: SimpleNamespace, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Folders whose names are not UTF-8, and one whose letters the output has not."""
    photos = tmp_path / "fotos_\udcfc"
    shutil.copytree(disk.root / "folder" / "a", photos / "\u65e5\u672c")
    shutil.copytree(disk.root / "folder" / "b", photos / "b")
    os.rename(photos / "b", os.fsencode(photos) + b"/caf\xe9")
    printed = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", printed)
    words = ("--model", disk.root / "model", "--data", photos, "--out", tmp_path / "classifier")
    main(["probe", *map(str, words)])
    words = (photos, "--model", tmp_path / "classifier", "--out", tmp_path / "classes.csv")
    main(["predict", *map(str, words)])
    told = printed.buffer.getvalue().decode(encoding)
    assert "classes of 40 images" in told
    assert "caf\\xe9" in told
    assert "\u65e5" in told if encoding == "utf-8" else "\\u65e5" in told
    rows = (tmp_path / "classes.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert {row.split(",")[1] for row in rows} == {"\u65e5\u672c", "caf\\xe9"}
    assert "fotos_\\xfc" in (tmp_path / "classifier" / "report.html").read_text(encoding="utf-8")


def test_auto_precision_goes_on_with_that_of_the_results(
    disk: SimpleNamespace, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another processor, on which "auto" means something else, goes on with what is there."""
    model = ("--model", disk.root / "model", "--out")
    embedding = ("embed", disk.root / "folder", *model, tmp_path / "features.csv")
    generating = ("generate", *model, tmp_path / "samples", "--batch-size", 2, "--steps", 2, "--num")
    monkeypatch.setattr("mage.device.bf16_is_fast", lambda device: False)
    assert command(*embedding).code == command(*generating, 2).code == 0
    monkeypatch.setattr("mage.device.bf16_is_fast", lambda device: True)
    assert "40 were there" in command(*embedding).out
    assert command(*generating, 4).code == 0
    refused = command(*embedding, "--precision", "bf16")
    assert (refused.code, "was made otherwise (precision: " in refused.err) == (2, True)


def test_a_folder_becomes_one_page(
    run: SimpleNamespace, disk: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    words = ("explore", disk.root / "folder", "--model", run.root / "model", "--out", tmp_path / "page.html")
    result = command(*words, "--limit", 30, "--clusters", 3)
    assert result.code == 0, result.err
    assert "30 of 40 images, 3 groups" in result.out
    found = json.loads(command(*words, "--json").out)
    assert (found["images"], found["total"]) == (40, 40)
    assert found["bytes"] == (tmp_path / "page.html").stat().st_size


def test_probe_on_random_crops_takes_a_pass_per_epoch(run: SimpleNamespace, command: Command) -> None:
    words = ("--model", run.root / "model", "--data", "digits", "--protocol", "lars", "--epochs", 2, "--json")
    result = command("probe", *words, "--crops", "random", "--crop-scale", 0.8, 1.0)
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["protocol"] == f"lars_2ep mean {RANDOM_CROPS}"
    assert (found["train_images"], found["test_images"]) == (1500, 297)


def test_the_lars_probe_cuts_test_images_as_published_whatever_the_training_crops(
    run: SimpleNamespace, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: dict[str, list[tuple[str, TransformConfig]]] = {}

    def spy(model: object, dataset: ImageDataset, transform: TransformConfig, **more: object) -> Features:
        found = extract_features(model, dataset, transform, **more)  # type: ignore[arg-type]
        cuts[name].append((f"{len(dataset)} images", transform))
        return found

    monkeypatch.setattr("mage.cli.probe.extract_features", spy)
    words = ("probe", "--model", run.root / "model", "--data", "digits", "--epochs", 1, "--protocol")
    asked = {
        "fixed": ("lars",),
        "random": ("lars", "--crops", "random"),
        "lbfgs": ("lbfgs",),
        "all": ("lars", "--cut", "whole"),
        "inner": ("lbfgs", "--cut", "paper"),
    }
    for name, more in asked.items():
        cuts[name] = []
        assert command(*words, *more).code == 0
    published, whole = TransformConfig(size=(8, 8), resize=9), TransformConfig(size=(8, 8))
    assert cuts["random"] == [("297 images", published)]
    assert cuts["fixed"] == [("1500 images", published), ("297 images", published)]
    assert cuts["inner"] == cuts["fixed"]
    assert cuts["lbfgs"] == [("1500 images", whole), ("297 images", whole)]
    assert cuts["all"] == cuts["lbfgs"]


def test_votes_few_labels_and_the_whole_suite_say_which_cut_they_measured(
    run: SimpleNamespace, command: Command
) -> None:
    words = ("--model", run.root / "model", "--data", "digits", "--json")
    for name, more in {"knn": (), "fewshot": ("--counts", 1, "--draws", 1)}.items():
        whole, paper = (
            json.loads(command(name, *words, *more, "--cut", cut).out)["protocol"] for cut in ("whole", "paper")
        )
        assert paper == f"{whole} of images scaled to 9 pixels"
    found = json.loads(command("evaluate", "representations", *words, "--parts", "knn", "--cut", "paper").out)
    assert found["protocols"]["knn_accuracy"].endswith("centre crops of images scaled to 9 pixels")
    told = command("evaluate", "representations", *words[:-1], "--parts", "knn", "fewshot")
    assert told.code == 0, told.err
    lines = {line.split("  ")[0]: line for line in told.out.splitlines()}
    for title in ("k-NN", "1 per class"):  # an interval from low to high, and half a width around a mean of draws
        low, high = map(float, re.search(r"\(([\d.]+) to ([\d.]+) %\)", lines[title]).groups())  # type: ignore[union-attr]
        assert 0 <= low < high <= 100


def test_few_labels_and_transfer_measure_what_the_probes_do(run: SimpleNamespace, command: Command) -> None:
    model = run.root / "model"
    words = ("--model", model, "--data", "digits", "--counts", 1, 20, "--draws", 3, "--json")
    found = json.loads(command("fewshot", *words).out)
    assert found["few_shot_accuracy"]["1"] < found["few_shot_accuracy"]["20"]
    assert len(found["draws"]["20"]) == 3
    words = ("--model", model, run.root / "model" / "model", "--data", "digits", "--protocol", "ridge", "--json")
    results = json.loads(command("transfer", *words).out)["results"]
    assert [one["data"] for one in results] == ["digits", "digits"]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["metrics"]["linear_probe_ridge_accuracy"] > 0.3


def test_fine_tuning_then_robustness_then_comparison(run: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    words = ("--model", run.root / "model", "--data", "digits", "--out", tuned, "--set", "optim.steps=4", "--json")
    found = json.loads(command("finetune", *words).out)
    assert (found["steps"], found["test_images"]) == (4, 297)
    assert mage.load(tuned).transformer.num_classes == 10
    small = ("--corruption-images", 20, "--attack-images", 10, "--json")
    first = tmp_path / "first.json"
    words = ("--model", tuned, "--data", "digits", "--out", first, *small)
    assert command("robustness", *words).code == 0
    words = ("--model", tuned, "--data", "digits", "--baseline", first, "--no-attacks", *small)
    again = json.loads(command("robustness", *words).out)
    assert again["metrics"]["mean_corruption_error"] == pytest.approx(1.0)
    assert not any(name.startswith("pgd") for name in again["metrics"])
    for out in (run.root / "model", tuned):
        parts = ("--parts", "knn", "corruptions", "attacks")
        result = command(
            "evaluate", "representations", "--model", out, "--data", "digits", "--out", out, *parts, *small
        )
        assert result.code == 0, result.err
        assert json.loads((out / "representations.json").read_text())["metrics"]["knn_accuracy"] > 0.2
    measure = ("evaluate", "representations", "--model", run.root / "model", "--data", "digits", "--parts", "knn")
    measure += ("--out", tmp_path / "measured", "--finetune", "small", "--json", "--finetune-set")
    wrong = command(*measure, "optim.nothing=3")
    assert wrong.code != 0
    assert "nothing" in wrong.err
    assert not (tmp_path / "measured").exists(), "told before all the protocols are measured"
    measure += ("optim.steps=3",)
    first, again = command(*measure), command(*measure)  # as one that was stopped after its training
    assert (first.code, again.code) == (0, 0), again.err
    assert "finetune_accuracy" in json.loads(again.out)["metrics"]
    page = tmp_path / "comparison.html"
    assert command("compare", run.root / "model", tuned, "--out", page).code == 0
    assert "Corruptions, by kind" in page.read_text()


def test_benchmark_prints_and_records_ratios(command: Command, tmp_path: Path) -> None:
    words = ("--size", "tiny", "--batch-sizes", 1, "--paths", "features", "--rounds", 1)
    result = command("benchmark", *words, "--record", tmp_path / "speed.json", "--json")
    assert result.code == 0, result.err
    record = json.loads((tmp_path / "speed.json").read_text())
    assert record["metrics"]["features"] > 0
    assert record["metrics"].keys() == json.loads(result.out).keys()
    assert {"commit", "command", "seed", "machine", "protocol", "seconds", "metrics"} <= record.keys()


def test_corrupt_files_are_skipped_counted_and_named(
    run: SimpleNamespace, disk: SimpleNamespace, command: Command, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        for path in (disk.root / "folder").rglob("*.png"):
            copy = tmp_path / "photos" / split / path.parent.name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    bad = tmp_path / "photos" / "train" / "a" / "3.png"
    bad.write_bytes(bad.read_bytes()[:40])
    result = command("probe", "--model", run.root / "model", "--data", tmp_path / "photos")
    assert result.code == 0, result.err
    assert f"1 unreadable files skipped: {bad}" in result.out
    words = ("--recipe", "smoke", "--data", tmp_path / "photos", "--out", tmp_path / "tokenizer", "--json")
    result = command("train-tokenizer", *words)
    assert result.code == 0, result.err
    assert json.loads(result.out)["skipped"] == [str(bad)]


def test_convert_goes_both_ways(command: Command, tmp_path: Path) -> None:
    words = (GOLDEN / "official_checkpoint.pth", "--config", GOLDEN / "expected.json")
    result = command("convert", *words, "--out", tmp_path / "model", "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert {"optimizer", "scaler", "args"} <= set(told["dropped"])
    assert command("convert", tmp_path / "model", "--out", tmp_path / "back.pth").code == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    with torch.serialization.safe_globals([argparse.Namespace]):
        before = torch.load(GOLDEN / "official_checkpoint.pth", weights_only=True)["model"]
    assert back.keys() == before.keys()
    assert all(torch.equal(back[name], before[name]) for name in before)


def test_report_of_a_run_is_one_file(run: SimpleNamespace, command: Command) -> None:
    assert command("report", run.root / "model").code == 0
    assert (run.root / "model" / "figures" / "edit.png").is_file(), "pictures are drawn"
    assert command("report", run.root / "model", "--no-pictures").code == 0
    page = (run.root / "model" / "report.html").read_text()
    assert page.count("<img") >= 1  # the sample grids of training
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, command: Command) -> None:
    result = command(name, *(["tokenizer"] if name == "evaluate" else []), "--help")
    assert result.code == 0
    assert name in result.out
    assert "--json" in result.out


def test_plan_prints_a_recipe_that_can_be_read_again(command: Command, tmp_path: Path) -> None:
    words = ("--recipe", "imagenet-base", "--no-measure")
    result = command("plan", *words)
    assert result.code == 0
    assert result.out.startswith("# imagenet-base: ")
    (tmp_path / "recipe.yaml").write_text(result.out)  # the summary is a comment
    assert command("plan", "--config", tmp_path / "recipe.yaml", "--no-measure").out == result.out
    assert from_yaml(tmp_path / "recipe.yaml") == named("imagenet-base")


def test_plan_warns_of_a_batch_that_does_not_fit_the_images(command: Command) -> None:
    told = command("plan", "--recipe", "smoke", "--images", "12", "--no-measure").out
    assert "a batch of 16 does not fit 11 images: --set tokenizer_training.batch_size=11" in told
    assert "--set pretraining.batch_size=11" in told
    assert "does not fit" not in command("plan", "--recipe", "smoke", "--images", "100", "--no-measure").out


def test_plan_tells_the_time_of_both_trainings(command: Command) -> None:
    values = json.loads(command("plan", "--recipe", "smoke", "--images", "1000", "--json").out)
    assert (values["train_images"], values["held_out_images"]) == (950, 50)
    assert 0 < values["tokenizer_seconds"] < 600
    assert 0 < values["pretraining_seconds"] < 600
    told = command("plan", "--recipe", "smoke", "--images", "1000")
    assert "a step on this machine, about" in told.out
    assert "--no-measure" in told.err


def test_plan_computes_what_a_training_takes_on_other_devices(command: Command, tmp_path: Path) -> None:
    words = ("--recipe", "imagenet-large", "--device", "a100", "--devices", "8")
    told = command("plan", *words).out
    assert "# pre-training on 8 x a100 (ddp), computed, not measured; 512 images a device" in told
    assert "WARNING: this does not fit: --set pretraining.accumulation=2" in told
    (tmp_path / "recipe.yaml").write_text(told)
    assert from_yaml(tmp_path / "recipe.yaml") == named("imagenet-large")
    smaller = ("--set", "pretraining.accumulation=2", "--json")
    values = json.loads(command("plan", *words, *smaller).out)
    assert values["memory_bytes"] < 80e9, "the advice helps"
    assert (values["device"], values["strategy"], values["images"]) == ("a100", "ddp", 256)
    assert values["device_days"] == pytest.approx(8 * values["seconds"] / 86_400)
    assert "pretraining_seconds" not in values, "nothing is timed on this machine"
    too_small = ("--recipe", "imagenet-large", "--device", "t4", "--set", "model.depth=100")
    assert "WARNING: this does not fit: --strategy fsdp on several devices" in command("plan", *too_small).out


def test_ctrl_c_says_how_to_resume(run: SimpleNamespace, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mage", "pretrain", "--tokenizer", f"{run.root}/tokenizer", "--json"]
    words += ["--data", f"{run.root}/tokens", "--out", str(tmp_path / "cut"), "--set", "pretraining.steps=3000"]
    words += ["--set", "run.checkpoint_every=20"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while newest_checkpoint(tmp_path / "cut") is None:
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    last = err.strip().splitlines()[-1]
    assert last.startswith("continue with: mage pretrain")
    assert last.endswith("--resume")
    newest = newest_checkpoint(tmp_path / "cut")
    assert newest is not None
    assert mage.load(tmp_path / "cut").transformer is not None


def test_importing_is_silent_and_draws_no_random_numbers() -> None:
    code = "import torch; a = torch.get_rng_state(); import mage; print(torch.equal(a, torch.get_rng_state()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert done.stderr == ""


def test_a_reader_that_leaves_ends_a_command_in_silence() -> None:
    words = [sys.executable, "-m", "mage", "pretrain", "--help"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read()
    assert process.returncode == 141
    assert complaint == b""


def test_a_cache_made_from_a_folder_is_trained_on(run: SimpleNamespace, command: Command, tmp_path: Path) -> None:
    photos = tmp_path / "it's: photos"
    for number in range(40):
        pixels = torch.randint(0, 256, (1, 12, 12), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        images.save_png(photos / "ab"[number % 2] / f"{number}.png", pixels.float() / 255)
    words = ("--recipe", "smoke", "--tokenizer", run.root / "tokenizer")
    made = command("tokenize", *words, "--data", photos, "--out", tmp_path / "cache")
    assert made.code == 0, made.err
    trained = command("pretrain", *words, "--data", tmp_path / "cache", "--out", tmp_path / "run")
    assert trained.code == 0, trained.err
    photos.rename(tmp_path / "moved")
    words = (*words, "--data", tmp_path / "cache", "--out", tmp_path / "again")
    refused = command("pretrain", *words)
    assert refused.code == 2
    assert "where the images of the tokens are now is said by --set data.name=FOLDER" in refused.err
    (tmp_path / "empty").mkdir()
    refused = command("pretrain", *words, "--set", f"data.name={tmp_path / 'empty'}")
    assert "holds no images" in refused.err
    assert "are now" not in refused.err
    again = command("pretrain", *words, "--set", f"data.name={tmp_path / 'moved'}")
    assert again.code == 0, again.err


def test_info_says_what_a_model_was_trained_on_its_classes_and_its_sampler(
    command: Command, run: SimpleNamespace
) -> None:
    text = command("info", "cifar10").out
    for part in (
        "trained: recipe cifar10",
        "data cifar10",
        "method mage",
        "classes: airplane",
        "truck",
        "MB of weights",
    ):
        assert part in text
    values = json.loads(command("info", "digits", "--json").out)
    assert values["classes"] == list("0123456789")
    assert values["sampler"]["revisions"] == mage.load("digits", device="cpu").sampling.revisions
    assert "steps" not in values["sampler"], "20, as in the paper"
    assert values["bytes"] == packaged.weights_bytes(Path(values["folder"]))
    alone = json.loads(command("info", run.root / "tokenizer", "--json").out)
    assert "sampler" not in alone
    assert alone["trained"]["recipe"] == "smoke"
