"""The models that come with this version: each is the one that its record describes, and small enough to ship."""

import json
from pathlib import Path

import pytest

import mage
from mage.cli.main import main
from mage.evaluation.control import control
from mage.report.card import card_text
from mage.store import packaged
from mage.store.packaged import card_of, names, weights_bytes, weights_hash

RECORDS = Path(__file__).resolve().parents[2] / "results"
LARGEST_FILE, ALL = 16 * 2**20, 40 * 10**6
"""Bytes of a file of weights, and of all packaged weights."""


@pytest.mark.parametrize("name", names())
def test_a_card_is_the_record_of_these_weights(name: str) -> None:
    folder, card = packaged.FOLDER / name, card_of(name)
    assert weights_hash(folder) == card.weights, "the card is of other weights"
    assert card.record == json.loads((RECORDS / "models" / f"{name}.json").read_text())
    assert all(path.stat().st_size < LARGEST_FILE for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize("name", names())
def test_the_recorded_control_values_come_out_again(name: str) -> None:
    pytest.importorskip("mlxtend")
    found, recorded = control(mage.load(name, precision="float32", device="cpu")), card_of(name).record["metrics"]
    for metric, value in found.items():
        assert value == pytest.approx(recorded[metric], rel=2e-3), metric


@pytest.mark.parametrize("name", names())
def test_a_card_says_what_one_must_know(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    card = card_of(name)
    text = card_text(name, card)
    for fact in (card.title, card.data, card.licence, *card.limits, card.record["machine"], card.record["command"]):
        assert fact in text
    main(["models", name])
    assert capsys.readouterr().out.strip() == text.strip()


def test_packaged_weights_leave_the_distribution_small() -> None:
    assert sum(weights_bytes(packaged.FOLDER / name) for name in names()) <= ALL


def test_the_demos_record_of_minutes_is_the_committed_one() -> None:
    if packaged.MINUTES.exists():
        assert json.loads(packaged.MINUTES.read_text()) == json.loads((RECORDS / "first_minute.json").read_text())
