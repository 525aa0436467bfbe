"""The checkup: what it finds in order, and that it finds what is broken."""

import json
import math
from importlib import metadata
from pathlib import Path

import pytest
import torch

from mage import device as device_policy
from mage.cli.main import main
from mage.pipeline import Mage
from mage.runs import doctor
from mage.store import packaged


def test_a_working_installation_is_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--device", "cpu", "--precision", "float32"])
    text = capsys.readouterr().out
    assert text.endswith("all in order\n")
    for part in (f"torch {metadata.version('torch')}", "digits intact", "cpu, float32 (asked for)", "MB in"):
        assert part in text
    main(["doctor", "--device", "cpu", "--json"])
    values = json.loads(capsys.readouterr().out)
    assert values["problems"] == []
    assert values["packaged"] == dict.fromkeys(packaged.names(), True)
    assert values["seconds"] > 0
    assert values["device"]["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("fast", [True, False])
def test_the_precision_that_auto_takes_is_explained(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_policy, "bf16_is_fast", lambda _: fast)
    device = doctor.check("cpu").device
    assert device["precision"] == ("bf16" if fast else "float32")
    assert device["reason"] == f"cpu {'multiplies' if fast else 'does not multiply'} bfloat16 faster than float32"


def test_damaged_weights_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    card = {"title": "", "data": "", "licence": "", "weights": "0" * 64, "record": {}}
    (folder / packaged.CARD).write_text(json.dumps(card))
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    with pytest.raises(SystemExit, match="1"):
        main(["doctor", "--device", "cpu"])
    assert "PROBLEM: the packaged model toy is damaged: install again" in capsys.readouterr().out
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "nothing")
    assert doctor.check("cpu").problems == ["no packaged model is there: the installation is incomplete"]


@pytest.mark.parametrize(("method", "shape", "value", "message"), [
    ("generate", (4, 1, 8, 8), math.nan, "NaN or infinity"),
    ("generate", (4, 1, 8, 8), 2.0, "values run from 2 to 2"),
    ("features", (4, 16), math.nan, "features are not finite numbers"),
    ("decode_tokens", (4, 1, 8, 8), math.inf, "restored images are not finite numbers"),
])  # fmt: skip
def test_a_model_that_computes_nonsense_is_a_problem(
    method: str, shape: tuple[int, ...], value: float, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "decode_tokens":  # generation calls it, too
        monkeypatch.setattr(Mage, "generate", lambda self, n, **_: torch.rand(shape))
    monkeypatch.setattr(Mage, method, lambda *_, **__: torch.full(shape, value))
    checkup = doctor.check("cpu")
    assert checkup.seconds == 0
    assert checkup.problems[0].startswith("a model does not compute on cpu: ValueError")
    assert message in checkup.problems[0]


def test_a_missing_extra_is_told_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requirements = [
        "torch>=2.5",
        'no-such-package>=1; extra == "tables"',
        'numpy; extra == "demo"',
        "x; extra == 'dev'",
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: requirements)
    assert doctor.missing_extras() == {"tables": ["no-such-package"], "demo": []}
    main(["doctor", "--device", "cpu"])
    text = capsys.readouterr().out
    assert 'without no-such-package: pip install "mage-vision[tables]"' in text
    assert text.endswith("all in order\n"), "an extra is not needed"


def test_bytes_of_caches_are_counted_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "large").write_bytes(bytes(10_000))
    (tmp_path / "cache" / "deep" / "file").write_bytes(bytes(100))
    (tmp_path / "cache" / "link").symlink_to(tmp_path / "large")
    assert 100 < doctor.folder_bytes(tmp_path / "cache") < 1_000
    assert doctor.folder_bytes(tmp_path / "nothing") == 0


def test_on_a_busy_machine_the_setting_that_helps_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (100.0, 1.0, 1.0))
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert "OMP_WAIT_POLICY=PASSIVE" in doctor.check("cpu").hints[0]
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert doctor.check("cpu").hints == [], "the user has chosen"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (1.0, 100.0, 1.0))
    assert doctor.check("cpu").hints == []
