"""`mage reproduce imagenet`, dry: synthetic weights in the released form, a small folder in ImageNet's layout."""

import copy
import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import mage
from mage import images, rng
from mage.cli.main import main
from mage.evaluation.classification import ProbeResult
from mage.evaluation.extractors import Extractor, Seen
from mage.models import MAGEConfig
from mage.recipes import FinetuneRecipe, named
from mage.runs.launch import Launch
from mage.runs.reproduce import PUBLISHED, ReproduceConfig, open_weights, published, reproduce, table

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def see(pixels: torch.Tensor) -> Seen:
    """Brightness of the quarters, and as class scores."""
    found = torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 2).flatten(1)
    return Seen(found, found[:, :4] / 50)


INCEPTION = Extractor("inception", "inception", see)
FAST = ReproduceConfig(num=12, steps=2, batch_size=4, epochs=1)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imagenet")
    for split, count in (("train", 12), ("val", 6)):
        for label in ("n01440764", "n02084071", "n03977966"):
            for number in range(count):
                image = torch.rand(3, 20, 26, generator=rng.generator(0, split, label, number))
                images.save_png(root / split / label / f"{label}_{number}.png", image)
    return root


@pytest.fixture(scope="module")
def model() -> mage.Mage:
    sizes = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    tokenizer = named("smoke").tokenizer
    return mage.build(sizes, tokenizer=type(tokenizer)(**(vars(tokenizer) | {"channels": 3})), precision="float32")


def test_all_parts_are_measured_and_not_twice(model: mage.Mage, imagenet: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = reproduce(model, str(imagenet), tmp_path, INCEPTION, FAST, precision="float32", announce=said.append)
    assert {"fid", "is", "linear", "fewshot5", "fewshot10", "fid_inception_val12", "fid_inception_val12_real"} <= set(
        found
    )
    assert found["fid"] == found["fid_inception_val12"]
    assert json.loads((tmp_path / "generation.json").read_text())["settings"]["rounding"] == "truncate"
    assert json.loads((tmp_path / "features_inception" / "settings.json").read_text())["rounding"] == "truncate"
    assert "fewshot25" not in found, "classes of 12 images"
    again = reproduce(model, str(imagenet), tmp_path, INCEPTION, FAST, precision="float32", announce=said.append)
    assert again == found
    assert sum("already in" in sentence for sentence in said) == 3
    longer = ReproduceConfig(parts=("linear",), epochs=2, batch_size=4)
    said.clear()
    reproduce(model, str(imagenet), tmp_path, None, longer, precision="float32", announce=said.append)
    assert said == ["linear ..."], "other settings are measured again"


def test_what_another_tokenizer_measured_is_not_taken_over(model: mage.Mage, imagenet: Path, tmp_path: Path) -> None:
    config, said = ReproduceConfig(parts=("fewshot",), batch_size=4), list[str]()
    reproduce(model, str(imagenet), tmp_path, None, config, announce=said.append)
    other = copy.deepcopy(model.tokenizer)
    with torch.no_grad():
        other.encoder.out.weight.neg_()
    changed = mage.Mage(other, model.transformer, precision="float32")
    reproduce(changed, str(imagenet), tmp_path, None, config, announce=said.append)
    assert said == ["fewshot ...", "fewshot ..."]


def test_a_model_folder_has_a_tokenizer_and_sizes_of_its_own(model: mage.Mage, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    for more in ({"tokenizer": tmp_path / "vq.ckpt"}, {"config": {"depth": 3}}):
        with pytest.raises(ValueError, match="which --tokenizer and --config do not change"):
            open_weights(tmp_path / "model", more.get("tokenizer"), tmp_path / "x", config=more.get("config"))


def test_fixed_crops_have_a_name_of_their_own(model: mage.Mage, imagenet: Path, tmp_path: Path) -> None:
    config = ReproduceConfig(parts=("linear",), epochs=1, crops="fixed", batch_size=4)
    assert list(reproduce(model, str(imagenet), tmp_path, None, config)) == ["linear_fixed_crops"]


def test_a_stopped_generation_goes_on(model: mage.Mage, imagenet: Path, tmp_path: Path) -> None:
    config = ReproduceConfig(parts=("generation",), num=70, steps=2, batch_size=1)
    whole = reproduce(model, str(imagenet), tmp_path / "a", INCEPTION, config)

    class Stop(Exception):
        pass

    def stop(sentence: str) -> None:
        if sentence.startswith("32 of"):
            raise Stop

    with pytest.raises(Stop):
        reproduce(model, str(imagenet), tmp_path / "b", INCEPTION, config, announce=stop)
    assert len(list((tmp_path / "b" / "features_inception").glob("*.npz"))) == 2
    assert reproduce(model, str(imagenet), tmp_path / "b", INCEPTION, config) == whole


def test_the_table_shows_measured_and_published_numbers(model: mage.Mage) -> None:
    row = PUBLISHED[1024]
    text = table(row, {"fid": 9.2, "is": 104.0, "linear": 0.78, "fid_inception_val50k_real": 1.6})
    assert "| fid | 9.2 | 9.1 |" in text
    assert "| is | 104 | 105.1 |" in text
    assert "| linear | 78.0% | 78.9% |" in text
    assert "| fid_inception_val50k_real | 1.6 |  |" in text
    assert PUBLISHED[768].metrics["fewshot25"] == 0.637
    assert published(model).metrics == {}, "this size was not published"


def test_released_files_are_converted_once(tmp_path: Path) -> None:
    config = json.loads((GOLDEN / "expected.json").read_text())["config"]
    first = open_weights(GOLDEN / "official_checkpoint.pth", None, tmp_path / "model", config=config)
    written = (tmp_path / "model" / "config.json").stat().st_mtime_ns
    again = open_weights(GOLDEN / "official_checkpoint.pth", None, tmp_path / "model", config=config)
    assert (tmp_path / "model" / "config.json").stat().st_mtime_ns == written
    assert first.transformer.config == again.transformer.config


def test_the_command_from_released_weights_to_table(
    imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The golden checkpoint, as a user with the weights and ImageNet would."""
    words: list[Any] = [
        "reproduce", "imagenet", "--checkpoint", GOLDEN / "official_checkpoint.pth",
        "--config", GOLDEN / "expected.json",
        "--data", imagenet, "--out", tmp_path / "out", "--num", 6, "--steps", 2, "--epochs", 1, "--batch-size", 4,
        "--extractor", "efflite0", "--parts", "generation", "fewshot", "--precision", "float32",
    ]  # fmt: skip
    main([str(word) for word in words])
    text = (tmp_path / "out" / "table.md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    assert "fd_efflite0_val6" in text
    assert "| fid |" not in text, "another extractor gives no FID"
    metrics = json.loads((tmp_path / "out" / "result.json").read_text())["metrics"]
    assert metrics["fewshot5"] >= 0


def test_another_extractor_is_another_measurement(model: mage.Mage, imagenet: Path, tmp_path: Path) -> None:
    config = ReproduceConfig(parts=("generation",), num=12, steps=2, batch_size=4)
    first = reproduce(model, str(imagenet), tmp_path, Extractor("toy:net", "toy", see), config)
    assert "fid" not in first
    assert "fid" in reproduce(model, str(imagenet), tmp_path, INCEPTION, config)
    fewer = ReproduceConfig(parts=("generation",), num=12, steps=2, batch_size=4, seed=1)
    with pytest.raises(ValueError, match="another seed"):
        reproduce(model, str(imagenet), tmp_path, INCEPTION, fewer)


def test_a_stopped_linear_probe_goes_on(model: mage.Mage, imagenet: Path, tmp_path: Path) -> None:
    config = ReproduceConfig(parts=("linear",), epochs=3, batch_size=4)
    whole = reproduce(model, str(imagenet), tmp_path / "a", None, config)
    assert len(list((tmp_path / "a").glob("linear_*.pt"))) == 1
    (tmp_path / "a" / "linear.json").unlink()
    assert reproduce(model, str(imagenet), tmp_path / "a", None, config) == whole, "from the last epoch's state"


def test_other_weights_do_not_go_on_with_what_was_kept_of_the_first(
    model: mage.Mage, imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = mage.build(model.transformer.config, tokenizer=model.tokenizer.config, precision="float32", seed=1)
    config = ReproduceConfig(parts=("linear", "finetune"), epochs=1, batch_size=4)
    kept: list[str] = []
    probe = importlib.import_module("mage.runs.reproduce").lars_probe_on_crops

    def noted(*inputs: Any, keep: Path, **more: Any) -> ProbeResult:
        kept.append(keep.name)
        return probe(*inputs, keep=keep, **more)

    def tune(recipe: FinetuneRecipe, launch: Launch, model: mage.Mage) -> None:
        kept.append(launch.out.name)

    monkeypatch.setattr("mage.runs.reproduce.lars_probe_on_crops", noted)
    monkeypatch.setattr("mage.runs.reproduce.finetune", tune)
    monkeypatch.setattr("mage.runs.reproduce.load", lambda folder, **options: model)
    monkeypatch.setattr("mage.runs.reproduce.classification_accuracy", lambda *inputs: SimpleNamespace(top1=0.5))
    for weights in (model, other):
        reproduce(weights, str(imagenet), tmp_path, None, config, precision="float32")
    assert len(set(kept)) == 4
