"""What reads files of strangers, each with a valid example and the way to change it: for `fuzz.py`."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import torch
from PIL import Image

import mage
from mage import array_files, images
from mage.checkpoints import foreign, official
from mage.data.own_tokens import write_tokens
from mage.data.shard_index import BESIDE
from mage.data.shard_writer import write_shard
from mage.data.stored_tokens import open_cache
from mage.data.tar_images import open_shards
from mage.evaluation import image_classifier
from mage.evaluation.linear_head import LinearHead
from mage.evaluation.seen import Reference
from mage.recipes import named
from mage.recipes.resolve import from_yaml
from mage.recipes.schema import to_yaml
from mage.report.page import write_report
from mage.runs.table_files import Column, read_table, table_writer
from mage.store import files
from mage.training.checkpoint import read_checkpoint, write_checkpoint
from mage.training.runlog import read_log

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


@dataclass
class Reader:
    """A kind of file, one valid example, and what reads it."""

    name: str
    target: Path
    """The file that is changed."""
    mutate: mutations.Mutation
    read: Callable[[], Any]
    corpus: list[bytes] = field(default_factory=list)
    """The valid file, and the changed ones that reached new lines."""
    lines: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.corpus.append(self.target.read_bytes())


def readers(root: Path) -> list[Reader]:
    """All of them, with their examples in a folder."""
    model = mage.build(named("smoke").model, tokenizer=named("smoke").tokenizer, precision="float32", device="cpu")
    pixels = torch.randint(0, 256, (6, 3, 9, 11), dtype=torch.uint8)
    made = [*_models(root, model), *_tokens(root), *_shards(root, pixels), *_pictures(root, pixels), *_runs(root)]
    made += _tables(root)
    array = root / "array.npy"
    np.save(array, np.arange(60).reshape(5, 12))
    made.append(Reader("npy", array, mutations.of_npy, lambda: int(array_files.open_npy(array).astype("f8").sum() > 0)))
    statistics = root / "reference.npz"
    np.savez(statistics, mu=np.zeros(4), sigma=np.eye(4))
    load = lambda: Reference.load(statistics, extractor="efflite0")  # noqa: E731
    made.append(Reader("statistics npz", statistics, mutations.of_zip, load))
    return made


def _models(root: Path, model: mage.Mage) -> list[Reader]:
    made = []
    for name, file, mutate in (
        ("model config", "config.json", mutations.of_json),
        ("model weights", "transformer.safetensors", mutations.of_safetensors),
    ):
        folder = root / name.replace(" ", "-")
        model.save(folder)
        config = json.loads((folder / "config.json").read_text())
        config.pop(files.HASHES, None)  # whoever forges weights forges their hash
        (folder / "config.json").write_text(json.dumps(config))
        made.append(Reader(name, folder / file, mutate, lambda folder=folder: mage.load(folder, device="cpu")))
    released = root / "released.pth"
    released.write_bytes((GOLDEN / "official_checkpoint.pth").read_bytes())
    config = json.loads((GOLDEN / "expected.json").read_text())["config"]
    made.append(Reader("released pth", released, mutations.of_zip, lambda: official.read_released(released, config)))
    classifier = root / "classifier"
    classifier.mkdir()
    width = model.features(torch.zeros(1, model.channels, *model.image_size)).shape[1]
    head = LinearHead(torch.zeros(width), torch.ones(width), torch.zeros(2, width), torch.zeros(2))
    settings = image_classifier.ClassifierConfig(image_classifier.FORMAT, ("cats", "dogs"))
    image_classifier.ImageClassifier(model, head, settings).write(classifier)
    load = lambda: image_classifier.load_classifier(classifier, device="cpu")  # noqa: E731
    made.append(Reader("classifier", classifier / image_classifier.CONFIG, mutations.of_json, load))
    made.append(Reader("classifier weights", classifier / image_classifier.HEAD, mutations.of_safetensors, load))
    return [*made, *_foreign(root)]


def _foreign(root: Path) -> list[Reader]:
    import diffusers  # loads for seconds

    folder = root / "diffusers"
    network = diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8,
        block_out_channels=(16, 16), latent_channels=4, sample_size=16, num_vq_embeddings=24, vq_embed_dim=4,
    )  # fmt: skip
    network.save_pretrained(folder)
    weights = next(folder.glob("*.safetensors"))
    read = lambda: foreign.read_diffusers(folder)  # noqa: E731
    return [
        Reader("diffusers config", folder / "config.json", mutations.of_json, read),
        Reader("diffusers weights", weights, mutations.of_safetensors, read),
    ]


def _tokens(root: Path) -> list[Reader]:
    made = []
    for name, file, mutate in (
        ("cache index", "index.json", mutations.sealed),
        ("cache tokens", "tokens-00000.u16", mutations.of_bytes),
    ):
        folder = root / name.replace(" ", "-")
        write_tokens(folder, np.arange(80).reshape(10, 8) % 16, num_codes=16)

        def read(folder: Path = folder) -> Any:
            cache = open_cache(folder)
            assert cache is not None
            return cache.tokens(np.array([0, len(cache) - 1]), np.array([0, 0]))

        made.append(Reader(name, folder / file, mutate, read))
    return made


def _shards(root: Path, pixels: torch.Tensor) -> list[Reader]:
    made = []
    for name, ending, mutate in (("shard", "", mutations.of_tar), ("shard index", BESIDE, mutations.of_json)):
        folder = root / name.replace(" ", "-")
        folder.mkdir()
        members = [(f"{n}.png", images.png_bytes(images.to_float(picture))) for n, picture in enumerate(pixels)]
        write_shard(folder / "s.tar", [*members, ("0.cls", b"cat"), ("1.json", b'{"label": 3}')])
        if not ending:
            (folder / f"s.tar{BESIDE}").unlink()

        def read(folder: Path = folder) -> Any:
            dataset = open_shards(folder)
            return [dataset.load(index) for index in range(min(8, len(dataset)))]

        made.append(Reader(name, folder / f"s.tar{ending}", mutate, read))
    return made


def _pictures(root: Path, pixels: torch.Tensor) -> list[Reader]:
    made = []
    picture = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    for kind in ("png", "jpeg", "gif", "webp", "bmp", "tiff"):
        path = root / f"picture.{kind}"
        picture.save(path)
        mutate = mutations.of_png if kind == "png" else mutations.of_bytes
        made.append(Reader(kind, path, mutate, lambda path=path: images.load_image(path, 3)))
    return made


def _tables(root: Path) -> list[Reader]:
    columns = (Column("file", "text"), Column("label", "integer"), Column("features", "vector", 3))
    piece = {"file": np.array(["a", "b"]), "label": np.arange(2), "features": np.ones((2, 3), "f4")}
    made = []
    for form, mutate in ((".csv", mutations.of_bytes), (".npz", mutations.of_zip), (".parquet", mutations.of_bytes)):
        path = root / f"table{form}"
        with table_writer(path, form, columns, 2) as write:
            write(piece)
        made.append(Reader(f"table {form[1:]}", path, mutate, lambda path=path: list(read_table(path, columns))))
    return made


def _runs(root: Path) -> list[Reader]:
    recipe, log = root / "recipe.yaml", root / "run" / "metrics.jsonl"
    recipe.write_text(to_yaml(named("smoke")))
    log.parent.mkdir()
    log.write_text('{"step": 1, "loss": 2.5, "seconds": 1.0}\n{"step": 2, "valid/loss": 2.25}\n')
    state = {"step": 3, "modules": {"mage": {"weight": torch.zeros(3, 4)}}, "rng": torch.get_rng_state()[:64]}
    write_checkpoint(state, root / "run", 3)
    checkpoint = next((root / "run" / "checkpoints").glob("*.pt"))
    evaluation = root / "page" / "evaluation.json"
    evaluation.parent.mkdir()
    values = {"metrics": {"linear": 0.5, "fd": 3.0}, "protocols": {"linear": "x"}, "intervals": {"linear": [0.4, 0.6]}}
    evaluation.write_text(json.dumps(values))

    def report() -> None:
        page = write_report(evaluation.parent).read_text()
        assert mutations.SCRIPT not in page, "text of a file is code in the page"

    return [
        Reader("report", evaluation, mutations.of_json, report),
        Reader("recipe yaml", recipe, mutations.of_yaml, lambda: from_yaml(recipe)),
        Reader("metrics jsonl", log, mutations.of_bytes, lambda: read_log(log.parent)),
        Reader("run checkpoint", checkpoint, mutations.of_zip, lambda: read_checkpoint(checkpoint)),
    ]
