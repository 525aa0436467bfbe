"""The journal of a call's steps: finished ones are not repeated, damage and other requests are refused."""

from pathlib import Path

import pytest

from mage.runs.journal import Journal

ASKED = {"seed": 1}


def finished(path: Path) -> list[int]:
    """Runs two steps that are finished once; those that were run now."""
    ran: list[int] = []
    journal = Journal(path, ASKED)
    for number in (1, 2):
        assert journal.once(f"step {number}", lambda number=number: ran.append(number) or {"value": number}) == {
            "value": number
        }
    return ran


def test_finished_steps_are_not_repeated(tmp_path: Path) -> None:
    assert finished(tmp_path / "journal.json") == [1, 2]
    assert finished(tmp_path / "journal.json") == []


def test_a_damaged_journal_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    finished(path)
    whole = path.read_text()
    for text in (whole.replace('"value": 2', '"value": 3'), whole[:-9]):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"journal\.json cannot be read: .*; delete its folder to begin again"):
            Journal(path, ASKED)


def test_a_journal_of_another_request_is_refused(tmp_path: Path) -> None:
    finished(tmp_path / "journal.json")
    with pytest.raises(ValueError, match="was started with other settings: seed: 1 is not 2"):
        Journal(tmp_path / "journal.json", {"seed": 2})
