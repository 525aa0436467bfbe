"""Models on the Hub: shared and loaded through a server on this machine; no test reaches another one."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import mage
from mage.cli.main import main
from mage.models import MAGEConfig
from mage.recipes import named
from mage.settings import to_dict
from mage.store import files, hub, packaged
from mage.store import folder as store
from mage.store.hub_names import HubName, hub_name, name_to_write
from mage.store.model_card import CardFacts
from tests.reference.hub_server import READ, WRITE, Hub, serving

client = pytest.importorskip("huggingface_hub")
# huggingface-hub calls its own HTTP client in a way that the client warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "somebody/photos"


@pytest.fixture(scope="module")
def model() -> mage.Mage:
    recipe = named("smoke")
    sizes = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    made = mage.build(sizes, tokenizer=recipe.tokenizer, precision="float32", device="cpu")
    made.recipe = to_dict(recipe)
    made.recipe["data"]["name"] = "/home/somebody/holiday"
    return made


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that may be written to, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    with serving() as running:
        for name, value in {
            "ENDPOINT": running.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": running.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        }.items():
            monkeypatch.setattr(client.constants, name, value)
        monkeypatch.setattr(client.file_download.time, "sleep", lambda _: None)
        monkeypatch.setenv("HF_TOKEN", WRITE)
        yield running


def load(name: str, **keywords: str) -> mage.Mage:
    return mage.load(name, precision="float32", device="cpu", **keywords)  # type: ignore[arg-type]


def test_a_shared_model_comes_back_the_same(model: mage.Mage, server: Hub) -> None:
    address = model.push_to_hub(NAME, private=True, commit_message="first")
    repository = server.models[NAME]
    assert repository.private
    assert address == f"{server.address}/{NAME}/commit/{repository.branches['main']}"
    assert repository.messages[-1] == "first"
    assert torch.equal(load(NAME).generate(2), model.generate(2))
    assert torch.equal(load(f"hf://{NAME}").generate(1), model.generate(1))
    assert store.find_folder(Path(f"hf://{NAME}")) == store.find_folder(NAME), "a path object has a single slash"


def test_config_and_safetensors_alone_are_uploaded_in_one_commit(model: mage.Mage, server: Hub) -> None:
    model.push_to_hub(NAME)
    repository = server.models[NAME]
    assert len(repository.commits) == 2, "the one that makes the model, and the one with all files"
    content = repository.commits[repository.branches["main"]]
    assert set(content) == {".gitattributes", "config.json", "README.md", store.TOKENIZER, store.TRANSFORMER}


def test_nothing_but_config_and_weights_is_downloaded(model: mage.Mage, server: Hub) -> None:
    model.push_to_hub(NAME)
    repository = server.models[NAME]
    content = repository.commits[repository.branches["main"]]
    repository.add_commit("main", content | {"pytorch_model.bin": b"pickle", "code.py": b"import os"}, "more")
    folder = store.find_folder(NAME)
    assert {path.name for path in folder.iterdir()} == {"config.json", store.TOKENIZER, store.TRANSFORMER}
    assert not [line for line in server.requests if "pytorch_model.bin" in line or "code.py" in line]


def test_a_branch_is_made_written_and_read(model: mage.Mage, server: Hub) -> None:
    model.push_to_hub(NAME)
    tokenizer = mage.Mage(model.tokenizer, None, device="cpu")
    tokenizer.push_to_hub(NAME, revision="small/tokenizer")
    repository = server.models[NAME]
    card = repository.commits[repository.branches["small/tokenizer"]]["README.md"].decode()
    assert f'mage.load("{NAME}@small/tokenizer")' in card
    assert "# photos\n" in card
    assert load(NAME).transformer is not None
    for other in (load(NAME, revision="small/tokenizer"), load(f"{NAME}@small/tokenizer")):
        assert other.transformer is None, "weights that the new model does not have are deleted"
    assert load(NAME, revision=server.models[NAME].branches["main"]).transformer is not None
    with pytest.raises(ValueError, match=r"somebody/photos on the Hub has no revision 'v2'"):
        load(NAME, revision="v2")
    with pytest.raises(ValueError, match="two revisions are given, v1 in somebody/photos@v1 and v2"):
        load(f"{NAME}@v1", revision="v2")


def test_a_card_says_what_the_model_is_and_no_path_of_the_machine(model: mage.Mage, server: Hub) -> None:
    model.push_to_hub(NAME, card=CardFacts(title="toys", license="mit", limits=["It is a toy."]))
    content = server.models[NAME].commits[server.models[NAME].branches["main"]]
    card = content["README.md"].decode()
    for part in (
        "library_name: mage-vision\npipeline_tag: unconditional-image-generation\nlicense: mit\n",
        "# photos: toys",
        'mage.load("somebody/photos")',
        "(n, 1, 8, 8)",
        "It is a toy.",
        "- **Training images**: holiday",
    ):
        assert part in card
    assert "/home/somebody" not in card + content["config.json"].decode()
    model.push_to_hub("somebody/other")
    assert "license" not in server.models["somebody/other"].commits[
        server.models["somebody/other"].branches["main"]
    ]["README.md"].decode().split("---")[1], "nobody said which"  # fmt: skip


def test_names_of_classes_are_no_paths(model: mage.Mage, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["/b/", "and/or", "C:\\classes"]
    monkeypatch.setitem(model.notes, "class_names", names)
    model.push_to_hub(NAME)
    content = server.models[NAME].commits[result_of(server)]
    assert json.loads(content["config.json"])["notes"]["class_names"] == names
    assert "- **Classes**: /b/, and/or" in content["README.md"].decode()


def test_a_card_that_somebody_wrote_stays(model: mage.Mage, server: Hub) -> None:
    model.push_to_hub(NAME)
    repository = server.models[NAME]
    written = b"---\nlibrary_name: mage-vision\n---\n# Mine"
    repository.add_commit("main", repository.commits[repository.branches["main"]] | {"README.md": written}, "mine")
    model.push_to_hub(NAME)
    assert repository.commits[repository.branches["main"]]["README.md"] == written


def test_a_folder_and_a_packaged_name_come_before_the_hub(
    model: mage.Mage, server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.push_to_hub(NAME)
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "packaged")
    store.write(model.parts, tmp_path / "packaged" / "toy")
    (tmp_path / "packaged" / "toy" / packaged.CARD).write_text("{}")
    model.save(tmp_path / NAME)
    server.requests.clear()
    assert store.find_folder(NAME) == Path(NAME)
    assert store.find_folder("toy") == tmp_path / "packaged" / "toy"
    with pytest.raises(ValueError, match="is the folder somebody/photos: revision='v1' is for models on the Hub"):
        load(NAME, revision="v1")
    with pytest.raises(ValueError, match=r"there is no model at somebody/phtoos; .* hf://somebody/phtoos$"):
        load("somebody/phtoos")
    assert server.requests == []
    assert store.find_folder(f"hf://{NAME}").is_relative_to(tmp_path / "cache")


@pytest.mark.parametrize(
    "name", ["digits", "a/b/c", "/a/b", "./a", "../a", "a/..", "a/", "a b/c", "a/b@", "a\\b", "https://a/b", ""]
)
def test_other_names_are_no_names_of_hub_models(name: str) -> None:
    assert hub_name(name) is None


def test_names_of_hub_models_are_recognised() -> None:
    assert hub_name("a/b-c.d_e") == HubName("a/b-c.d_e")
    assert hub_name(Path("hf://a/b@v1")) == hub_name("hf://a/b", "v1") == HubName("a/b", "v1")
    with pytest.raises(ValueError, match="'digits' is no name of a hub model: give hf://user/name"):
        hub_name("hf://digits")
    with pytest.raises(ValueError, match="cannot upload to 'digits'"):
        name_to_write("digits")


def test_without_a_connection_the_cache_is_used(model: mage.Mage, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    model.push_to_hub(NAME)
    load(NAME)
    monkeypatch.setattr(client.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert torch.equal(load(NAME).generate(1), model.generate(1))
    with pytest.raises(ConnectionError, match=r"no folder has this name.*not in the cache.*127.0.0.1:9\) cannot be"):
        load("somebody/other")
    with pytest.raises(ConnectionError, match="the transfer of somebody/other broke off"):
        model.push_to_hub("somebody/other")
    monkeypatch.setattr(client.constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(load(NAME).generate(1), model.generate(1))
    with pytest.raises(ConnectionError, match=r"there is no model at somebody/other.*HF_HUB_OFFLINE is set"):
        load("somebody/other")
    with pytest.raises(ConnectionError, match="cannot be uploaded: HF_HUB_OFFLINE is set"):
        model.push_to_hub("somebody/other")


def test_missing_and_private_models_are_told_with_all_that_was_looked_for(
    model: mage.Mage, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = r"no model at somebody/photos: no folder has this name, packaged models are .*digits.*hf auth login"
    with pytest.raises(ValueError, match=expected):
        load(NAME)
    model.push_to_hub(NAME, private=True)
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(ValueError, match=expected):
        load(NAME)
    monkeypatch.setenv("HF_TOKEN", READ)
    assert load(NAME).transformer is not None
    with pytest.raises(ValueError, match=r"does not let you write to somebody/photos.*token that may write"):
        model.push_to_hub(NAME)


@pytest.mark.parametrize(("status", "code", "kind", "message"), [
    (403, "", ValueError, "does not let you read somebody/photos"),
    (403, "GatedRepo", ValueError, "asks for its owner's permission first"),
    (503, "", ConnectionError, "answered with status 503"),
])  # fmt: skip
def test_other_answers_are_one_sentence(
    server: Hub, status: int, code: str, kind: type[Exception], message: str
) -> None:
    server.status, server.code = status, code
    with pytest.raises(kind, match=message):
        load(NAME)


def test_a_transfer_that_breaks_off_leaves_nothing_that_is_loaded_later(model: mage.Mage, server: Hub) -> None:
    model.push_to_hub(NAME)
    server.cut = store.TRANSFORMER
    with pytest.raises(ConnectionError, match="the transfer of somebody/photos broke off"):
        load(NAME)
    server.cut = None
    assert torch.equal(load(NAME).generate(1), model.generate(1))


def test_other_weights_than_those_that_were_uploaded_are_refused(model: mage.Mage, server: Hub) -> None:
    model.push_to_hub(NAME)
    repository = server.models[NAME]
    content = repository.commits[repository.branches["main"]]
    weights = content[store.TRANSFORMER]
    repository.add_commit("main", content | {store.TRANSFORMER: weights[:-1] + b"\1"}, "one byte")
    with pytest.raises(ValueError, match=r"transformer.safetensors of somebody/photos on the Hub is not the file"):
        load(NAME)
    repository.add_commit("main", {name: data for name, data in content.items() if name != store.TRANSFORMER}, "less")
    with pytest.raises(ValueError, match=r"is incomplete: its config.json names transformer.safetensors"):
        load(NAME)
    config = json.loads(content["config.json"])
    del config[files.HASHES]
    repository.add_commit("main", content | {"config.json": json.dumps(config).encode()}, "no hashes")
    with pytest.raises(ValueError, match="names no hashes of weights"):
        load(NAME)
    repository.add_commit("main", {"model.bin": b"pickle"}, "of another library")
    with pytest.raises(ValueError, match=r"is not a model of this library: it has no config.json"):
        load(NAME)


def test_settings_of_a_downloaded_model_are_not_overwritten(model: mage.Mage, server: Hub) -> None:
    model.push_to_hub(NAME)
    with pytest.raises(ValueError, match="is a downloaded model: write a copy of your own"):
        store.write_settings(model.parts, store.find_folder(NAME))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r'pip install "mage-vision\[hub\]"'):
        load(NAME)
    with pytest.raises(ValueError, match="there is no model at nowhere"):
        load("nowhere")


def test_push_uploads_a_run_with_its_measures_and_keeps_released_tensors(
    model: mage.Mage, server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.write(model.parts, tmp_path / "run" / "model", extra={"kept": torch.ones(2)})
    metrics = {"psnr_db": 21.5, "linear_probe_accuracy": 0.875, "broken": float("nan")}
    (tmp_path / "run" / "results.json").write_text(json.dumps({"metrics": metrics}))
    before = (tmp_path / "run" / "model" / "config.json").read_bytes()
    main(["push", "--model", "run", "--to", NAME, "--license", "cc-by-4.0", "--message", "better", "--json"])
    result = json.loads(capsys.readouterr().out)
    repository = server.models[NAME]
    assert result == {"model": NAME, "revision": None, "commit": f"{server.address}/{NAME}/commit/{result_of(server)}"}
    content = repository.commits[result_of(server)]
    assert store.EXTRA in content
    card = content["README.md"].decode()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc-by-4.0"
    assert [(one["type"], one["value"]) for one in front["model-index"][0]["results"][0]["metrics"]] == [
        ("psnr_db", 21.5), ("linear_probe_accuracy", 0.875),
    ]  # fmt: skip
    assert "| Linear probe | 87.5" in card
    assert (repository.private, repository.messages[-1]) == (False, "better")
    assert (tmp_path / "run" / "model" / "config.json").read_bytes() == before, "the run stays as it is"


def result_of(server: Hub) -> str:
    return server.models[NAME].branches["main"]


def test_the_card_of_a_packaged_model_is_that_of_the_package(server: Hub) -> None:
    main(["push", "--model", "digits", "--to", NAME])
    card = server.models[NAME].commits[result_of(server)]["README.md"].decode()
    record = packaged.card_of("digits")
    for part in (record.title, record.data, record.licence, *record.limits):
        assert part in card
    assert "| Tokenizer PSNR | 27.3" in card
    assert packaged.weights_hash(store.find_folder(NAME)) == record.weights, "not rounded twice"


def test_commands_in_a_fresh_process_take_hub_names(model: mage.Mage, server: Hub, tmp_path: Path) -> None:
    model.push_to_hub(NAME)
    environment = os.environ | {
        "HF_ENDPOINT": server.address, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path / "fresh"),
        "PYTHONPATH": str(Path(mage.__file__).parents[1]),
    }  # fmt: skip
    words = [sys.executable, "-m", "mage", "generate", "--model", f"{NAME}@main", "--num", "1", "--out", "samples"]
    done = subprocess.run([*words, "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert (tmp_path / "samples").is_dir()


def test_a_converted_checkpoint_is_ready_for_upload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = Path(__file__).parents[1] / "golden"
    words = [str(golden / "official_checkpoint.pth"), "--config", str(golden / "expected.json")]
    main(["convert", *words, "--out", str(tmp_path / "base"), "--to-hub-layout"])
    files.check_hashes(tmp_path / "base", "the folder")
    assert "# base" in (tmp_path / "base" / hub.CARD).read_text()
    assert "license" not in (tmp_path / "base" / hub.CARD).read_text().split("---")[1]
    (tmp_path / "base" / hub.CARD).write_text("my words")
    main(["convert", *words, "--out", str(tmp_path / "base"), "--to-hub-layout"])
    assert (tmp_path / "base" / hub.CARD).read_text() == "my words"
    main(["convert", str(tmp_path / "base"), "--out", str(tmp_path / "back.pth")])
    with pytest.raises(SystemExit, match="2"):
        main(["convert", str(tmp_path / "base"), "--out", str(tmp_path / "again.pth"), "--to-hub-layout"])
    assert "leave it out" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["convert", str(tmp_path / "base"), "--out", str(tmp_path / "again.pth"), "--allow-extra"])
    assert "leave them out" in capsys.readouterr().err


def test_the_code_of_the_page_runs(model: mage.Mage, server: Hub, tmp_path: Path) -> None:
    model.save(tmp_path / "runs" / "photos" / "model")
    page = (Path(__file__).parents[2] / "docs" / "hub.md").read_text()
    scope: dict[str, object] = {}
    for block in page.split("```python\n")[1:]:
        exec(compile(block.split("```")[0], "hub.md", "exec"), scope)
    assert isinstance(scope["images"], torch.Tensor)
    assert server.models[NAME].private
    content = server.models[NAME].commits[result_of(server)]
    assert "Faces look wrong." in content["README.md"].decode()
    table = page.split("| file |")[1].split("\n\n")[0]
    assert all(name in table or name.endswith(".safetensors") for name in content if name != ".gitattributes")
