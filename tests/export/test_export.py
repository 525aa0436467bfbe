"""Exported files compute what the model computes, for every kind of checkpoint and quantizer."""

import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

import mage
from mage.cli.main import main
from mage.export import check as checking
from mage.export import export, programs
from mage.export.manifest import describe
from mage.export.parts import Part, Port, parts_of
from mage.models import MAGEClassifier, MAGEConfig, MAGETransformer, PatchClassifier, PatchEncoder, PatchEncoderConfig
from mage.tokenizers import VQGAN, LDMConfig, LDMTokenizer, QuantizerConfig, VQGANConfig
from mage.tokenizers.quantizers import Quantizer
from mage.vocabulary import Vocabulary

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CODES, GRID = 16, (2, 3)
SIZES = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
PATCHES = PatchEncoderConfig((8, 12), 3, 4, 16, 1, 2)


@pytest.fixture(autouse=True)
def as_users_run_it() -> Iterator[None]:
    """Checks of shapes would be traced into the graphs."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def scrambled(network: Any) -> Any:
    """Weights of which none is 0, so that every one of them matters: class vectors and biases start at 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        for name, buffer in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return network.eval()


def tokenizer(kind: str = "vq") -> VQGAN:
    """A VQGAN of 8 x 12 pixels with each kind of quantizer."""
    codes, levels, width = {"fsq": (15, (5, 3), 2), "lfq": (16, (), 4)}.get(kind, (CODES, (), 4))
    quantizer = QuantizerConfig(kind=kind, num_codes=codes, levels=levels)
    return scrambled(VQGAN(VQGANConfig((8, 12), 3, 8, (1, 1), 1, 1, 0, width, 2, quantizer)))  # type: ignore[no-any-return]


def network(classes: int = 0, grid: tuple[int, ...] = GRID, **sizes: Any) -> MAGETransformer:
    config = MAGEConfig(**{**vars(SIZES), "num_classes": classes, **sizes})
    words = classes if config.class_input == "encoder" else 0
    return scrambled(MAGETransformer(config, Vocabulary.fresh(CODES, words), grid))  # type: ignore[no-any-return]


def of(tokens: Any, transformer: Any) -> mage.Mage:
    return mage.Mage(tokens, transformer, precision="float32", device="cpu")


def classifier(pool: Any, head: Any) -> mage.Mage:
    made = MAGEClassifier(SIZES, Vocabulary.fresh(CODES), GRID, num_classes=5, pool=pool, head_kind=head)
    return of(tokenizer(), scrambled(made))


def of_patches(pool: Any) -> mage.Mage:
    made = PatchClassifier(PATCHES, num_classes=5, pool=pool, head_kind="linear")
    return of(None, scrambled(made))


MODELS = {
    "plain": lambda: of(tokenizer(), network()),
    "class words": lambda: of(None, network(3)),
    "class vectors": lambda: of(None, network(3, class_input="decoder")),
    "maskgit": lambda: of(None, network(decoder_depth=0)),
    "sequence": lambda: of(None, network(grid=(6,))),
    "fine-tuned": lambda: classifier("mean", "linear"),
    "probe": lambda: classifier("class", "batchnorm_linear"),
    "pixels": lambda: of(None, scrambled(PatchEncoder(PATCHES))),
    "pixels, fine-tuned": lambda: of_patches("mean"),
    "taming": lambda: of(
        scrambled(LDMTokenizer(LDMConfig((8, 12), 3, 8, (1, 2), 1, (1,), (1,), True, 4, 4, CODES, 4))), None
    ),
}
PARTS = {
    "plain": ["encode", "decode", "features", "logits"],
    "fine-tuned": ["classes"],
    "probe": ["classes"],
    "pixels": ["features"],
    "pixels, fine-tuned": ["classes"],
    "taming": ["encode", "decode"],
}
"""What is compared of each kind: what no kind above it has; one conversion takes seconds. Others: a decoding pass."""


def differences(model: mage.Mage, folder: Path, form: str, parts: list[str]) -> dict[str, float]:
    """Of batches of 1 and of 4 images, through the written files."""
    export(model, folder, form, parts=parts, checked=False)
    found = {}
    for part in parts_of(model, parts):
        run = checking.runner(form, part, folder / f"{part.name}.{'onnx' if form == 'onnx' else 'pt2'}")
        for count in (1, 4):
            inputs = [port.example(count, seed=2) for port in part.inputs]
            with torch.no_grad():
                expected = part.network(*inputs)
            computed = run(inputs)
            assert computed.shape == expected.shape == (count, *part.output.shape)
            assert computed.dtype == expected.dtype
            found[f"{part.name} {count}"] = float((computed.double() - expected.double()).abs().max())
    return found


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "sequence"])
def test_onnx_files_of_every_kind_of_checkpoint_give_what_the_model_gives(kind: str, tmp_path: Path) -> None:
    parts = PARTS.get(kind, ["logits"])
    found = differences(MODELS[kind](), tmp_path / "out", "onnx", parts)
    assert len(found) == 2 * len(parts)
    assert max(found.values()) < 1e-4, found


class Ids(torch.nn.Module):
    """The last step of encoding alone, which takes a fraction of the time to convert."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, latent: Tensor) -> Tensor:
        return self.quantizer.ids(latent)


@pytest.mark.parametrize("kind", ["simvq", "ema", "normalized", "fsq", "lfq"])
def test_onnx_files_give_the_ids_of_every_quantizer(kind: str, tmp_path: Path) -> None:
    width = 2 if kind == "fsq" else 4
    quantizer = tokenizer(kind).quantizer
    part = Part("encode", Ids(quantizer), (Port("latent", (width, 5, 5), ""),), Port("ids", (5, 5), "", (0, CODES)))
    programs.write_onnx(programs.traced(part), part, tmp_path / "ids.onnx")
    latent = torch.randn(4, width, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = quantizer.ids(latent)
    assert len(expected.unique()) > 8, "many words are chosen"
    assert torch.equal(checking.runner("onnx", part, tmp_path / "ids.onnx")([latent]), expected)


@pytest.mark.parametrize("kind", ["class vectors", "sequence", "probe"])
def test_programs_give_what_the_model_gives(kind: str, tmp_path: Path) -> None:
    found = differences(MODELS[kind](), tmp_path / "out", "torch", PARTS.get(kind, ["logits"]))
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("plain", ["encode", "decode", "features", "logits"]),
        ("sequence", ["features", "logits"]),
        ("fine-tuned", ["encode", "decode", "features", "classes"]),
        ("pixels", ["features"]),
        ("pixels, fine-tuned", ["features", "classes"]),
        ("taming", ["encode", "decode"]),
    ],
)
def test_a_model_has_the_parts_of_its_networks(kind: str, expected: list[str]) -> None:
    assert [part.name for part in parts_of(MODELS[kind]())] == expected


@pytest.mark.parametrize("pool", ["class", "both", "last4"])
def test_the_features_have_the_pool_that_is_asked_for(pool: Any, tmp_path: Path) -> None:
    model = MODELS["pixels"]()
    if pool == "last4":
        with pytest.raises(ValueError, match="takes four blocks"):
            export(model, tmp_path / "out", "torch", pool=pool)
        assert not list(tmp_path.iterdir())
        model = mage.Mage(None, PatchEncoder(PatchEncoderConfig((8, 12), 3, 4, 16, 4, 2)), precision="float32")
    manifest = export(model, tmp_path / "out", "torch", pool=pool)
    assert manifest["files"]["features"]["output"]["shape"] == ["n", {"class": 16, "both": 32, "last4": 128}[pool]]
    (part,) = parts_of(model, pool=pool)
    images = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    computed = checking.runner("torch", part, tmp_path / "out" / "features.pt2")([images])
    assert torch.allclose(computed, model.features(images, pool), atol=1e-5)


def test_the_manifest_says_what_a_program_needs() -> None:
    model = mage.Mage(
        tokenizer(),
        network(3),
        recipe={"sampling": {"steps": 4, "schedule": "linear"}},
        notes={"class_names": ["a", "b", "c"], "class_shares": [0.5, 0.25, 0.25]},
    )
    manifest = json.loads(json.dumps(describe(model, parts_of(model), "onnx", None)))
    assert manifest["opset"] == 20
    assert [file["file"] for file in manifest["files"].values()] == [
        "encode.onnx",
        "decode.onnx",
        "features.onnx",
        "logits.onnx",
    ]
    assert (manifest["images"]["channels"], manifest["images"]["height"], manifest["images"]["width"]) == (3, 8, 12)
    assert manifest["tokens"] == {"grid": [2, 3], "num_codes": 16, "unknown": -1}
    assert manifest["vocabulary"]["mask_id"] == 20
    assert manifest["classes"] == {"count": 3, "names": ["a", "b", "c"], "none": -1, "shares": [0.5, 0.25, 0.25]}
    head = mage.Mage(None, MODELS["fine-tuned"]().transformer, notes={"class_shares": [1.0]})
    assert describe(head, parts_of(head), "onnx", None)["classes"]["shares"] is None, "nothing is drawn"
    assert manifest["sampling"]["still_unknown"] == [4, 3, 1, 0], "floor of 6 tokens times 3/4, 2/4, 1/4"
    ports = manifest["files"]["logits"]["inputs"]
    assert [(port["name"], port["shape"], port["least"], port["most"]) for port in ports] == [
        ("tokens", ["n", 2, 3], -1, 15),
        ("classes", ["n"], -1, 2),
    ]


def test_large_weights_lie_beside_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "ONE_FILE", 0)
    model = MODELS["pixels"]()
    export(model, tmp_path / "out", "onnx", checked=False)
    (part,) = parts_of(model)
    assert (tmp_path / "out" / "features.onnx.data").is_file()
    run = checking.runner("onnx", part, tmp_path / "out" / "features.onnx")
    assert checking.difference(part, run) < 1e-4


def test_the_command_says_what_it_wrote_and_how_near_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MODELS["plain"]().save(tmp_path / "model")
    words = ["--model", str(tmp_path / "model"), "--torch", str(tmp_path / "pt2"), "--parts", "encode", "features"]
    main(["export", *words])
    printed = capsys.readouterr().out
    assert "pt2: encode.pt2, features.pt2 and manifest.json; largest difference from the model" in printed
    assert re.search(r"model \d\S*, 0\.0% of the tokens differ$", printed.strip())
    manifest = json.loads((tmp_path / "pt2" / "manifest.json").read_text())
    assert list(manifest["largest_difference"]) == list(manifest["files"]) == ["encode", "features"]
    assert sorted(path.name for path in (tmp_path / "pt2").iterdir()) == ["encode.pt2", "features.pt2", "manifest.json"]
    main(["export", *words[:-2], "features", "--no-check", "--json"])
    assert json.loads(capsys.readouterr().out)["torch"]["largest_difference"] is None


def test_what_is_exported_is_float32_and_the_model_stays_as_it_was(tmp_path: Path) -> None:
    model = of(None, network().to(torch.bfloat16).train())
    (part,) = parts_of(model, ["features"])
    assert {weight.dtype for weight in part.network.parameters()} == {torch.float32}
    assert not part.network.training
    kept = model.require_transformer()
    assert kept.training
    assert all(weight.requires_grad and weight.dtype == torch.bfloat16 for weight in kept.parameters())


def test_a_file_that_computes_something_else_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(form: str, part: Part, path: Path) -> Any:
        return lambda inputs: part.network(*inputs) + 0.1

    monkeypatch.setattr(checking, "runner", shifted)
    with pytest.raises(
        ValueError, match=r"exported features does not compute .* difference is 0\.0\d+, more than 0\.0001"
    ):
        export(MODELS["pixels"](), tmp_path / "out", "torch")
    assert list(tmp_path.iterdir()) == []
    assert export(MODELS["pixels"](), tmp_path / "out", "torch", checked=False)["largest_difference"] is None


def test_an_export_replaces_an_export_and_nothing_else(tmp_path: Path) -> None:
    model = MODELS["pixels"]()
    export(model, tmp_path / "out", "torch")
    (tmp_path / "out" / "samples.ppm").write_text("of my own")
    (tmp_path / "out" / "encode.onnx.data").write_text("of an older export")
    export(model, tmp_path / "out", "torch")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"features.pt2", "manifest.json", "samples.ppm"}
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_text("")
    with pytest.raises(ValueError, match="holds no export; choose another name"):
        export(model, tmp_path / "photos", "torch")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]
    (tmp_path / "photos" / "manifest.json").write_text('{"name": "a page"}')
    with pytest.raises(ValueError, match="holds no export; choose another name"):
        export(model, tmp_path / "photos", "torch")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text")
def test_a_program_is_written_into_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"out\xff")
    assert export(MODELS["pixels"](), folder, "torch")["largest_difference"]["features"] == 0


class Strange:
    """A tokenizer of the user's own."""

    channels, image_size, grid, num_codes = 3, (8, 12), GRID, CODES

    def encode(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), *GRID, dtype=torch.int64)

    def decode(self, ids: Tensor) -> Tensor:
        return torch.zeros(len(ids), 3, 8, 12)

    def fingerprint(self) -> str:
        return "strange"


def test_a_tokenizer_of_ones_own_is_named_and_its_transformer_exported_alone(tmp_path: Path) -> None:
    model = of(Strange(), network())
    with pytest.raises(ValueError, match="a Strange of your own, which cannot be exported; give the parts"):
        export(model, tmp_path / "out", "torch")
    manifest = export(model, tmp_path / "out", "torch", parts=["features"])
    assert list(manifest["files"]) == ["features"]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["pixels"]()
    with pytest.raises(ValueError, match="there is no part 'everything' to export; parts are encode, decode"):
        export(model, tmp_path / "out", parts=["everything"])
    with pytest.raises(ValueError, match="no part 'logits'; it has features"):
        export(model, tmp_path / "out", parts=["logits"])
    with pytest.raises(ValueError, match="as onnx or torch, not as 'tflite'"):
        export(model, tmp_path / "out", "tflite")
    found = programs.importlib.util.find_spec
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda name: None if "onnx" in name else found(name))
    with pytest.raises(ValueError, match=r"need onnx and onnxscript: pip install 'mage-vision\[export\]'"):
        export(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_files_do_not_tell_where_the_library_was_installed(form: str, tmp_path: Path) -> None:
    manifest = export(MODELS["pixels"](), tmp_path / "out", form)
    path = tmp_path / "out" / manifest["files"]["features"]["file"]
    content = path.read_bytes()
    if form == "torch":
        with zipfile.ZipFile(path) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
    places = {Path(module.__file__ or "").parent for module in (mage, torch)}
    assert not [place for place in places if str(place).encode() in content]
