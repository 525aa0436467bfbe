"""A name of nothing is found before PyTorch is imported, which takes seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mage.cli.main import COMMANDS
from mage.cli.options.places import New, _place, check_new_file

SCRIPT = """
import sys
from mage.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert stop.code == 2, stop.code
assert "torch" not in sys.modules, "PyTorch was imported to find this out"
"""
MISTAKES = [
    ("embed nowhere --model digits --out features.csv", "no folder called 'nowhere'"),
    ("embed . --model digitz --out features.csv", "there is no model at digitz"),
    ("embed . --model digits --out features.txt", "must end in .csv, .parquet or .npz"),
    ("explore . --model a/b/c", "there is no model at a/b/c"),
    ("adapt photos/ --from digits --out run", "no folder called 'photos/'"),
    ("probe --model digits --data cifar --out run", "named data sets are mnist5k"),
    ("transfer --model digits other --data mnist5k", "there is no model at other"),
    ("generate --model digits --out file", "file is a file; --out takes a folder"),
    ("reconstruct --model digits --image a.png --out a.jpg", "must end in .png"),
    ("predict . --model file --out classes.csv", "file is a file, a model is a folder"),
    ("pretrain --tokenizer tokenizer --out run", "there is no model at tokenizer"),
    ("export --model digits --onnx file/onnx", "cannot write file/onnx: file is a file"),
]


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES)
def test_a_name_of_nothing_is_found_without_pytorch(arguments: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = [sys.executable, "-c", SCRIPT, *arguments.split()]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_data_sets_of_a_running_program_and_names_on_the_hub_are_left_to_the_library() -> None:
    from mage.cli.options import probe
    from mage.cli.options.places import check_places
    from mage.data.datasets import DATASETS, load_dataset

    options = probe.Options(model=Path("user/model"), data="MY_images")
    with pytest.raises(ValueError, match="no data set and no folder called 'MY_images'"):
        check_places(options)
    DATASETS.add("my-images", lambda split, root, channels: load_dataset("mnist5k", split=split))
    try:
        check_places(options)
    finally:
        DATASETS.remove("my-images")


def test_a_file_is_written_only_over_a_file_and_with_its_suffix(tmp_path: Path) -> None:
    check_new_file("--out", tmp_path / "new" / "page.HTML", (".html",))
    with pytest.raises(ValueError, match=r"must end in \.html"):
        check_new_file("--out", tmp_path / "page", (".html",))
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ValueError, match="is a folder; give the name of a file"):
        check_new_file("--out", tmp_path / "folder.html", (".html",))


def test_a_folder_that_cannot_be_written_is_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ValueError, match=rf"cannot write .*page\.html: the folder {tmp_path} cannot be written"):
        check_new_file("--out", tmp_path / "new" / "page.html", (".html",))
    (tmp_path / "new").mkdir()
    check_new_file("--out", tmp_path / "new" / "page.html", (".html",))


def test_a_name_of_a_data_set_and_of_a_folder_of_images_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mage.cli.options import adapt, anomalies, explore
    from mage.cli.options.places import check_places

    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    model = Path("digits")
    check_places(explore.Options(data="digits", model=model))  # a folder of other things is not meant
    (tmp_path / "digits" / "a.png").touch()
    for options in (
        explore.Options(data="digits", model=model),
        adapt.Options(folder="digits", from_=model, out=Path("run")),
        anomalies.Options(folder="digits", model=model, out=Path("found")),
    ):
        with pytest.raises(ValueError, match="digits is a data set, and a folder of images here: write digits/ for"):
            check_places(options)
    check_places(explore.Options(data="digits/", model=model))
    check_places(explore.Options(data="digits", data_root="digits", model=model))


def test_every_command_says_where_it_writes() -> None:
    """So that a result of hours is not lost because its folder turns out to be a file."""
    import dataclasses
    import importlib
    import typing

    assert _place(New | None) is not None
    for name in COMMANDS:
        kind = importlib.import_module(f"mage.cli.options.{name.replace('-', '_')}").Options
        for part in typing.get_args(kind) or (kind,):
            own = next((arg for arg in typing.get_args(part) if dataclasses.is_dataclass(arg)), part)
            hints = typing.get_type_hints(own, include_extras=True)
            for field in ("out", "record"):
                assert field not in hints or _place(hints[field]) is not None, f"{name} --{field}"
