"""Model folders: what is saved comes back the same, and nothing is left half-written."""

import json
import math
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import mage
from mage import atomic
from mage.models import MAGEClassifier, MAGEConfig, MAGETransformer
from mage.pipeline import Mage
from mage.store import folder as store
from mage.tokenizers import VQGAN, QuantizerConfig, VQGANConfig
from mage.vocabulary import Vocabulary

SIZES = MAGEConfig(16, 2, 2, decoder_width=12, decoder_depth=1, decoder_heads=3)


def tokenizer_config(kind: Any = "vq") -> VQGANConfig:
    return VQGANConfig(
        image_size=(8, 12), width=8, multipliers=(1, 2), blocks=1, decoder_blocks=1, middle_blocks=1, code_width=4,
        quantizer=QuantizerConfig(kind=kind, num_codes=16),
    )  # fmt: skip


@pytest.fixture
def model() -> Mage:
    made = mage.build(SIZES, tokenizer=tokenizer_config(), seed=3, precision="float32", device="cpu")
    made.recipe = {"name": "test", "sampling": {"steps": 3}}
    return made


@pytest.fixture
def pixels(generator: torch.Generator) -> torch.Tensor:
    return torch.rand(3, 3, 8, 12, generator=generator)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_saved_model_gives_the_same_outputs(model: Mage, pixels: torch.Tensor, tmp_path: Path) -> None:
    again = mage.load(model.save(tmp_path / "model"), precision="float32", device="cpu")
    assert again.recipe == model.recipe
    assert again.sampling.steps == 3
    assert torch.equal(again.encode(pixels), model.encode(pixels))
    for pool in ("mean", "class"):
        assert torch.equal(again.features(pixels, pool), model.features(pixels, pool))
    assert torch.equal(again.generate(2, seed=1), model.generate(2, seed=1))
    assert again.tokenizer.fingerprint() == model.tokenizer.fingerprint()


def test_tokenizer_alone_transformer_alone_and_classifier(model: Mage, pixels: torch.Tensor, tmp_path: Path) -> None:
    normalized = Mage(VQGAN(tokenizer_config("normalized")), None, precision="float32", device="cpu")
    again = mage.load(normalized.save(tmp_path / "tokenizer"), precision="float32", device="cpu")
    assert again.transformer is None
    assert torch.equal(again.encode(pixels), normalized.encode(pixels))

    alone = Mage(None, model.transformer, precision="float32", device="cpu")
    again = mage.load(alone.save(tmp_path / "transformer"), precision="float32", device="cpu")
    assert again.tokenizer is None
    assert torch.equal(again.generate_tokens(1), alone.generate_tokens(1))

    for pool, head_kind in (("mean", "linear"), ("class", "batchnorm_linear")):
        network = MAGEClassifier(
            SIZES, model.transformer.vocabulary, model.tokenizer.grid, num_classes=5, pool=pool, head_kind=head_kind
        )  # type: ignore[arg-type]
        classifier = Mage(model.tokenizer, network, precision="float32", device="cpu")
        again = mage.load(classifier.save(tmp_path / pool), precision="float32", device="cpu")
        assert torch.equal(again.classify(pixels), classifier.classify(pixels))


@pytest.mark.parametrize("grid", [(10,), (2, 3), (2, 3, 4)])
def test_a_grid_of_any_dimensions_comes_back(grid: tuple[int, ...], tmp_path: Path) -> None:
    words = Vocabulary.fresh(8)
    for network in (MAGETransformer(SIZES, words, grid), MAGEClassifier(SIZES, words, grid, num_classes=2)):
        folder = Mage(None, network.eval(), precision="float32", device="cpu").save(tmp_path / type(network).__name__)
        again = mage.load(folder, precision="float32", device="cpu").transformer
        assert again.grid == grid
        ids = torch.arange(2 * math.prod(grid)).remainder(8).view(2, *grid)
        assert torch.equal(again.features(ids), network.features(ids))


@pytest.mark.parametrize("grid", [[], [2, 3, 4, 5], [0, 6], [6.0], ["6"], None, 6, [2**31, 2**31]])
def test_an_invalid_grid_is_refused_before_a_network_is_built(model: Mage, tmp_path: Path, grid: Any) -> None:
    path = model.save(tmp_path / "model") / store.CONFIG
    config = json.loads(path.read_text())
    config["transformer"]["grid"] = grid
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"a grid is a list of 1 to 3 positive integers|grid .* at most"):
        mage.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("tokenizer", {"width": 2**20}),
        ("tokenizer", {"width": 10**30}),
        ("tokenizer", {"blocks": 10**9}),
        ("tokenizer", {"code_width": -4}),
        ("tokenizer", {"multipliers": [1] * 40}),
        ("sizes", {"depth": 10**7}),
        ("sizes", {"width": 2**20, "heads": 1}),
        ("sizes", {"mlp_ratio": 1e12}),
        ("sizes", {"mlp_ratio": float("nan")}),
    ],
)
def test_a_network_that_is_not_the_stored_one_costs_neither_memory_nor_time(
    model: Mage, tmp_path: Path, part: str, changes: dict[str, Any]
) -> None:
    path = model.save(tmp_path / "model") / store.CONFIG
    config = json.loads(path.read_text())
    (config["transformer"]["sizes"] if part == "sizes" else config["tokenizer"]).update(changes)
    path.write_text(json.dumps(config))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ValueError, match=r"at most|does not fit|cannot be built|must|between|multiple|number"):
        mage.load(tmp_path / "model")
    assert time.monotonic() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2e5, "kilobytes"


@pytest.mark.parametrize("changes", [{"recipe": 3}, {"notes": []}])
def test_a_recipe_and_notes_are_mappings(model: Mage, tmp_path: Path, changes: dict[str, Any]) -> None:
    path = model.save(tmp_path / "model") / store.CONFIG
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="not a model configuration"):
        mage.load(tmp_path / "model")
    del config["recipe"]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="not a model configuration"):
        mage.load(tmp_path / "model")


def test_the_model_inside_a_run_folder_is_found(model: Mage, tmp_path: Path) -> None:
    model.save(tmp_path / "run" / "model")
    assert mage.load(tmp_path / "run", device="cpu").image_size == (8, 12)


def test_loading_does_not_touch_global_randomness(model: Mage, tmp_path: Path) -> None:
    folder, before = model.save(tmp_path / "model"), torch.get_rng_state()
    mage.load(folder, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("change", ["add", "remove", "reshape"])
@pytest.mark.parametrize("file", [store.TOKENIZER, store.TRANSFORMER])
def test_weights_that_do_not_fit_are_refused_by_name(model: Mage, tmp_path: Path, file: str, change: str) -> None:
    folder = model.save(tmp_path / "model")
    tensors = load_file(folder / file)
    name = sorted(tensors)[0]
    tensor = tensors.pop(name)
    if change == "add":
        tensors |= {name: tensor, "surplus": tensor.clone()}
    if change == "reshape":
        tensors[name] = torch.zeros(*tensor.shape, 2)
    save_file(tensors, folder / file)
    with pytest.raises(ValueError, match=rf"{file} is damaged.*if you changed it yourself, remove 'sha256'"):
        mage.load(folder)
    config = json.loads((folder / store.CONFIG).read_text())
    (folder / store.CONFIG).write_text(json.dumps({key: config[key] for key in config.keys() - {"sha256", "checksum"}}))
    with pytest.raises(ValueError, match=f"does not fit its config.json: {'surplus' if change == 'add' else name}"):
        mage.load(folder)


@pytest.mark.parametrize("size", [0, 7, 500])
def test_cut_weights_are_refused(model: Mage, tmp_path: Path, size: int) -> None:
    weights = model.save(tmp_path / "model") / store.TRANSFORMER
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"transformer\.safetensors is damaged"):
        mage.load(tmp_path / "model")
    weights.unlink()
    with pytest.raises(ValueError, match="is missing"):
        mage.load(tmp_path / "model")


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"format": 1}', '{"format": 99, "tokenizer": null}', '{"format": 1, "tokenizer": {"widht": 1}}',
        '{"format": 1, "tokenizer": "vqgan", "transformer": null}', "[" * 10**5, "\xff",
    ],
)  # fmt: skip
def test_other_configurations_are_refused(model: Mage, tmp_path: Path, text: str) -> None:
    (model.save(tmp_path / "model") / store.CONFIG).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"config\.json|format 99|widht"):
        mage.load(tmp_path / "model")


def test_places_without_a_model_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no model at"):
        mage.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no model"):
        mage.load(tmp_path)
    (tmp_path / "file.pth").touch()
    with pytest.raises(ValueError, match="mage convert"):
        mage.load(tmp_path / "file.pth")


def test_saving_again_replaces_the_whole_folder(model: Mage, tmp_path: Path) -> None:
    folder = store.write(model.parts, tmp_path / "model", extra={"old": torch.ones(1)})
    assert (folder / store.EXTRA).exists()
    model.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == [store.CONFIG, store.TOKENIZER, store.TRANSFORMER]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("there_before", [True, False])
def test_a_failing_save_leaves_everything_as_it_was(
    model: Mage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there_before: bool
) -> None:
    folder = tmp_path / "model"
    if there_before:
        model.save(folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
    calls: list[Path] = []

    def fails_the_second_time(tensors: dict[str, torch.Tensor], path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError("no space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(store, "save_file", fails_the_second_time)
    with pytest.raises(OSError, match="no space"):
        model.save(folder)
    assert len(calls) == 2
    assert leftovers(tmp_path) == []
    assert folder.exists() == there_before
    if there_before:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        mage.load(folder)


def test_other_peoples_files_are_not_overwritten(model: Mage, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.png").write_bytes(b"cat")
    with pytest.raises(ValueError, match="not a model folder"):
        model.save(photos)
    with pytest.raises(ValueError, match="not a model folder"):
        model.save(photos / "cat.png")
    (photos / store.CONFIG).write_text('{"_class_name": "VQModel"}')
    with pytest.raises(ValueError, match="not a model folder"):
        model.save(photos)
    assert (photos / "cat.png").read_bytes() == b"cat"


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text")
def test_a_folder_whose_name_is_not_utf8_is_read(model: Mage, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"model\xff")
    model.save(folder)
    again = mage.load(folder, precision="float32")
    state = again.require_transformer().state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.require_transformer().state_dict().items())


def test_a_link_to_a_folder_stays_a_link(model: Mage, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "large", target_is_directory=True)
    model.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "large" / store.CONFIG).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "link"]


def test_a_model_folder_can_be_moved_and_read_elsewhere(model: Mage, tmp_path: Path) -> None:
    shutil.move(model.save(tmp_path / "here"), tmp_path / "there")
    assert str(tmp_path) not in (tmp_path / "there" / store.CONFIG).read_text()
    assert json.loads((tmp_path / "there" / store.CONFIG).read_text())["format"] == store.FORMAT
    assert torch.equal(mage.load(tmp_path / "there", device="cpu").generate_tokens(1), model.generate_tokens(1))


@pytest.mark.parametrize("file", [store.TOKENIZER, store.TRANSFORMER])
def test_a_flipped_bit_of_a_weight_is_noticed(model: Mage, tmp_path: Path, file: str) -> None:
    weights = model.save(tmp_path / "model") / file
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match=f"{file} is damaged: its SHA-256"):
        mage.load(tmp_path / "model")


def test_a_model_that_is_replaced_while_it_is_read_is_read_again(
    model: Mage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model.save(tmp_path / "model")
    other = mage.build(SIZES, tokenizer=tokenizer_config(), seed=4, precision="float32", device="cpu")
    with torch.no_grad():
        other.require_generator().head.bias.fill_(3.0)
    check = store.check_written

    def replaced(where: Path, config: Any) -> None:
        monkeypatch.setattr(store, "check_written", check)
        other.save(folder)  # the weights are new, and the configuration is the one before
        check(where, config)

    monkeypatch.setattr(store, "check_written", replaced)
    assert float(mage.load(folder, device="cpu").require_generator().head.bias.detach().min()) == 3.0


def test_a_changed_configuration_is_told_and_a_rewritten_one_is_not(
    model: Mage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = model.save(tmp_path / "model")
    store.write_settings(model.parts, folder)
    mage.load(folder)
    assert not caplog.text
    config = folder / store.CONFIG
    config.write_text(json.dumps(json.loads(config.read_text()) | {"notes": {"images": 7}}))
    mage.load(folder)
    assert "config.json was changed after it was written" in caplog.text


def test_a_full_disk_is_named_and_the_model_before_is_intact(model: Mage, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(OSError, match=r"the disk is full: .*model was not written"):
            model.save(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_that_a_dead_process_was_replacing_is_found(model: Mage, tmp_path: Path) -> None:
    """On disks that cannot swap two folders, there is a moment without the one that is replaced."""
    model.save(tmp_path / "model").rename(tmp_path / f".model.{atomic.HOST}-{2**22 + 1}-0.old")
    assert mage.load(tmp_path / "model").image_size == model.image_size
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_weights_can_be_read_by_whom_the_folder_can_be(tmp_path: Path) -> None:
    model = mage.build(SIZES, tokenizer=tokenizer_config(), device="cpu")
    for mask, expected in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            folder = model.save(tmp_path / f"{mask}")
        finally:
            os.umask(before)
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {expected}
