"""Many images: the same set for any number of processes, resumed without gap or duplicate."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mage
from mage import images
from mage.cli import generate
from mage.data.datasets import load_dataset
from mage.data.shard_index import BESIDE
from mage.data.tar_images import open_shards
from mage.evaluation.extractors import Extractor, Seen
from mage.evaluation.generation import compare
from mage.evaluation.seen import Reference
from mage.recipes import named
from mage.runs.generation import (
    compare_with_real,
    look_at_dataset,
    look_at_features,
    look_at_model,
    open_samples,
    random_subset,
)
from mage.runs.production import Production, claim, discard, image_shape_in, produce, units
from mage.runs.sinks import FeatureShards, PngFolder, Sink, TarShards, first_images

EXTRACTOR = Extractor(
    "toy", "toy", lambda pixels: Seen(pixels.float().flatten(1)[:, :50], pixels.float().flatten(1)[:, :3])
)
WHAT = Production(11, seed=3, batch_size=2, sampling={"steps": 3})


@pytest.fixture(scope="module")
def model() -> mage.Mage:
    return mage.build(named("smoke").model, tokenizer=named("smoke").tokenizer, precision="float32")


def sink(kind: str, folder: Path) -> Sink:
    if kind == "png":
        return PngFolder(folder, 2)
    return TarShards(folder, 4, lambda k: f"c{k}") if kind == "tar" else FeatureShards(folder, 4, EXTRACTOR)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def make(model: mage.Mage, kind: str, folder: Path, parts: int = 1, what: Production = WHAT) -> int:
    folder.mkdir(exist_ok=True)
    return sum(sum(produce(model, what, sink(kind, folder), (part, parts))) for part in range(parts))


@pytest.mark.parametrize("kind", ["png", "tar", "features"])
def test_any_number_of_processes_makes_the_same_set(model: mage.Mage, kind: str, tmp_path: Path) -> None:
    assert make(model, kind, tmp_path / "one") == 11
    assert make(model, kind, tmp_path / "three", parts=3) == 11
    assert content(tmp_path / "one") == content(tmp_path / "three")
    assert len(content(tmp_path / "one")) == {"png": 11, "tar": 3 + 3, "features": 3}[kind], "a shard has an index"


@pytest.mark.parametrize("kind", ["png", "tar", "features"])
def test_a_stopped_job_goes_on(model: mage.Mage, kind: str, tmp_path: Path) -> None:
    make(model, kind, tmp_path / "whole")
    job = produce(model, WHAT, sink(kind, tmp_path / "stopped"))
    next(job)
    next(job)
    job.close()
    begun = content(tmp_path / "stopped")
    assert 0 < len(begun) < len(content(tmp_path / "whole"))
    made = []

    class Watched:
        """Counts the units that are made again."""

        def __init__(self, inner: Sink) -> None:
            self.inner, self.unit, self.has, self.close = inner, inner.unit, inner.has, inner.close

        def write(self, numbers: range, batches: Iterator[torch.Tensor]) -> None:
            made.append(numbers.start)
            self.inner.write(numbers, batches)

    watched = Watched(sink(kind, tmp_path / "stopped"))
    assert sum(produce(model, WHAT, watched)) == 11
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")
    assert made[0] == 2 * watched.unit, "what was there is not made again"


def test_a_shard_of_a_killed_job_gets_its_index(model: mage.Mage, tmp_path: Path) -> None:
    """It is written after the shard."""
    make(model, "tar", tmp_path)
    whole = content(tmp_path)
    (tmp_path / f"000004.tar{BESIDE}").unlink()
    made = (tmp_path / "000004.tar").stat()
    make(model, "tar", tmp_path)
    assert content(tmp_path) == whole
    assert (tmp_path / "000004.tar").stat() == made, "the shard itself is not made again"


def test_more_images_continue_a_set(model: mage.Mage, tmp_path: Path) -> None:
    few = Production(5, seed=3, batch_size=2, sampling={"steps": 3})
    for kind in ("png", "tar", "features"):
        make(model, kind, tmp_path / kind, what=few)
        make(model, kind, tmp_path / kind)
        make(model, kind, tmp_path / f"{kind} at once")
        assert content(tmp_path / kind) == content(tmp_path / f"{kind} at once")


def test_pngs_are_the_models_images(model: mage.Mage, tmp_path: Path) -> None:
    make(model, "png", tmp_path / "a")
    make(model, "tar", tmp_path / "b")
    expected = images.to_uint8(torch.cat([model.generate(2, seed=3, steps=3, first_index=k) for k in (0, 2, 4)]))
    pngs = [images.load_image(tmp_path / "a" / f"{k:06d}.png", 1) for k in range(6)]
    shards = open_shards(tmp_path / "b", channels=1)
    for k in range(6):
        assert torch.equal(pngs[k], expected[k])
        assert torch.equal(shards.load(k), expected[k])
    assert len(first_images(tmp_path / "a", 9)) == len(first_images(tmp_path / "b", 9)) == 9
    assert first_images(tmp_path / "a", 12) == []


def test_a_class_whose_name_is_a_number_is_not_taken_for_the_class_of_that_number(tmp_path: Path) -> None:
    recipe = named("smoke")
    sizes = replace(recipe.model, num_classes=4, class_input="decoder")
    made = mage.build(sizes, tokenizer=recipe.tokenizer, precision="float32")
    made.notes["class_names"] = ["1", "10", "11", "2"]
    assert [generate._number(asked, made) for asked in ("2", "1", 2, -1)] == [3, 0, 2, -1]
    assert [generate._label(asked, made) for asked in ("2", "1", 2, None)] == ["3", "0", "2", None]
    made.notes["class_names"] = ["cat", "dog", "owl", "pig"]
    assert [generate._label(asked, made) for asked in ("owl", 2)] == ["owl", "2"]


def test_units_have_no_gap_and_no_duplicate() -> None:
    for parts in (1, 2, 5, 9):
        found = [number for part in range(parts) for unit in units(103, 8, (part, parts)) for number in unit]
        assert sorted(found) == list(range(103))


def test_settings_of_a_folder_are_guarded(model: mage.Mage, tmp_path: Path) -> None:
    claim(tmp_path, model, WHAT, "png", 2)
    claim(tmp_path, model, Production(999, seed=3, batch_size=2, sampling={"steps": 3}), "png", 2)
    for other, what in (
        ("seed", Production(11, batch_size=2, sampling={"steps": 3})),
        ("sampling", Production(11, 3, 2)),
    ):
        with pytest.raises(ValueError, match=f"another {other}.*--overwrite"):
            claim(tmp_path, model, what, "png", 2)
    make(model, "png", tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    discard(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_mistakes_are_refused(model: mage.Mage, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        list(produce(model, Production(4, batch_size=3), TarShards(tmp_path, 4, lambda k: None)))
    with pytest.raises(ValueError, match="no part 2 of 2"):
        list(produce(model, WHAT, PngFolder(tmp_path, 2), (2, 2)))
    with pytest.raises(ValueError, match="at least 1"):
        Production(0)


def test_every_source_gives_the_same_metrics(model: mage.Mage, tmp_path: Path) -> None:
    for kind in ("png", "tar", "features"):
        make(model, kind, tmp_path / kind)
    (tmp_path / "png" / "grid.png").write_bytes((tmp_path / "png" / "000000.png").read_bytes())
    model.save(tmp_path / "model")
    real = load_dataset("digits", split="test", channels=1)
    reference = Reference.of("test", look_at_dataset(random_subset(real, 60), EXTRACTOR, size=(8, 8)))
    seen = {"model": look_at_model(model, WHAT, EXTRACTOR)}
    for kind in ("png", "tar"):
        found = open_samples(tmp_path / kind).images
        assert found is not None
        assert len(found) == 11, "the overview is no sample"
        seen[kind] = look_at_dataset(found, EXTRACTOR, size=(8, 8))
    assert open_samples(tmp_path / "features").features is not None
    assert open_samples(tmp_path / "model").model is not None
    seen["features"] = look_at_features(tmp_path / "features", EXTRACTOR)
    grey = Extractor("toy", "toy", lambda pixels: EXTRACTOR.see(pixels))
    assert grey.name == "toy"
    metrics = {kind: compare(one, reference, "toy").metrics for kind, one in seen.items()}
    for kind in ("png", "tar", "features"):
        assert metrics[kind] == pytest.approx(metrics["model"], rel=1e-6), kind
    both = compare_with_real(
        seen["model"], reference, EXTRACTOR, look_at_dataset(random_subset(real, 11), EXTRACTOR, size=(8, 8))
    )
    assert both.metrics["fd_toy_test11_real"] < both.metrics["fd_toy_test11"]


def test_truncated_samples_are_named_in_the_protocol_and_not_mixed_with_rounded_ones(
    model: mage.Mage, tmp_path: Path
) -> None:
    real = look_at_dataset(random_subset(load_dataset("digits", split="test", channels=1), 60), EXTRACTOR, size=(8, 8))
    reference = Reference.of("test", real)
    rounded = look_at_model(model, WHAT, EXTRACTOR)
    truncated = look_at_model(model, WHAT, EXTRACTOR, rounding="truncate")
    gap = rounded.features - truncated.features
    assert set(gap.unique().tolist()) == {0.0, 1.0}, "one level darker where the next level is nearer"
    how = compare(truncated, reference, "toy").protocols["fd_toy_test11"]
    assert how == "11 images against 60 of test; too few, see the warnings, truncated to 8 bits"
    assert all(line.endswith("to 8 bits") for line in compare(truncated, reference, "toy").protocols.values())
    assert compare(rounded, reference, "toy").protocols["fd_toy_test11"].endswith(", rounded to 8 bits")
    assert compare(real, reference, "toy").protocols["fd_toy_test60"] == "60 images against 60 of test"
    claim(tmp_path, model, WHAT, "features", 4, extractor=EXTRACTOR, rounding="truncate")
    sum(produce(model, WHAT, FeatureShards(tmp_path, 4, EXTRACTOR, "truncate")))
    seen = look_at_features(tmp_path, EXTRACTOR)
    assert seen.rounding == "truncate"
    assert torch.equal(seen.features, truncated.features)
    with pytest.raises(ValueError, match="another rounding"):
        claim(tmp_path, model, WHAT, "features", 4, extractor=EXTRACTOR)


@pytest.mark.parametrize("broken", [2, 8])
def test_an_unreadable_real_image_is_left_out_and_named(
    tmp_path: Path, broken: int, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(9):
        images.save_png(tmp_path / f"{number}.png", torch.full((3, 8, 8), number / 9))
    (tmp_path / f"{broken}.png").write_bytes(b"no image")
    seen = look_at_dataset(load_dataset(tmp_path, split="all"), EXTRACTOR, size=(8, 8), batch_size=2)
    assert "1 unreadable images are left out" in caplog.text
    assert f"{broken}.png" in caplog.text
    (tmp_path / f"{broken}.png").unlink()
    expected = look_at_dataset(load_dataset(tmp_path, split="all"), EXTRACTOR, size=(8, 8), batch_size=2)
    assert torch.equal(seen.features, expected.features)
    assert seen.count == 8
    for path in tmp_path.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"none of the 8 images of .* could be read"):
        look_at_dataset(load_dataset(tmp_path, split="all"), EXTRACTOR, size=(8, 8))


def test_gaps_and_foreign_features_are_refused(model: mage.Mage, tmp_path: Path) -> None:
    make(model, "features", tmp_path / "a")
    other = Extractor("other", "other", EXTRACTOR.see)
    with pytest.raises(ValueError, match="features of toy, not of other"):
        look_at_features(tmp_path / "a", other)
    (tmp_path / "a" / "features-000004.npz").unlink()
    with pytest.raises(ValueError, match="lacks image 4"):
        look_at_features(tmp_path / "a", EXTRACTOR)
    with pytest.raises(ValueError, match="there is no folder"):
        open_samples(tmp_path / "nothing")


def test_a_folder_knows_the_models_own_sampler_and_refuses_foreign_files(model: mage.Mage, tmp_path: Path) -> None:
    claim(tmp_path / "mine", model, WHAT, "png", 2)
    claim(tmp_path / "mine", model, WHAT, "png", 2)
    own = {"sampling": {"choice_temperature": 99.0}}
    tuned = mage.Mage(model.tokenizer, model.transformer, recipe=own, precision=model.precision)
    with pytest.raises(ValueError, match=r"with another sampling"):
        claim(tmp_path / "mine", tuned, WHAT, "png", 2)
    images.save_png(tmp_path / "theirs" / "000000.png", torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match=r"holds 000000.png, which this command did not write"):
        claim(tmp_path / "theirs", model, WHAT, "png", 2)
    discard(tmp_path / "theirs")
    assert (tmp_path / "theirs" / "000000.png").is_file(), "a folder without settings is not ours"


def test_only_generated_files_are_discarded(model: mage.Mage, tmp_path: Path) -> None:
    claim(tmp_path, model, WHAT, "png", 2)
    make(model, "png", tmp_path)
    (tmp_path / "2024-holiday.png").touch()
    discard(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["2024-holiday.png"]


def test_features_say_of_which_extractor_and_of_what_images(model: mage.Mage, tmp_path: Path) -> None:
    claim(tmp_path, model, WHAT, "features", 4, extractor=EXTRACTOR)
    assert image_shape_in(tmp_path) == (1, 8, 8)
    assert image_shape_in(tmp_path / "none") is None
    other = Extractor("other", "other", EXTRACTOR.see)
    with pytest.raises(ValueError, match="another extractor"):
        claim(tmp_path, model, WHAT, "features", 4, extractor=other)
    make(model, "features", tmp_path)
    assert look_at_features(tmp_path, EXTRACTOR).count == 11
    assert look_at_features(tmp_path, EXTRACTOR, 5).count == 5
