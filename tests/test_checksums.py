"""Flipped bits and cut files do not keep their checksum."""

import json
import random
from pathlib import Path

import pytest

from mage import checksums


def test_a_file_has_the_checksum_of_its_bytes(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(2 * checksums.PIECE + 7)
    (tmp_path / "file").write_bytes(data)
    assert checksums.of_file(tmp_path / "file") == checksums.of_bytes(data)
    assert checksums.of_bytes(b"123456789") == "cbf43926", "the check value of CRC-32"


def test_any_change_of_a_sealed_value_is_noticed() -> None:
    values = {"grid": [4, 4], "name": "fotos", "share": 0.25, "nothing": None}
    sealed = json.loads(json.dumps(checksums.sealed(values)))
    assert checksums.unsealed(sealed) == values
    for name, value in (("grid", [4, 5]), ("name", "photos"), ("share", 0.26), ("nothing", 0), ("more", 1)):
        with pytest.raises(ValueError, match="does not fit its checksum"):
            checksums.unsealed(sealed | {name: value})


def test_values_of_older_versions_have_no_seal() -> None:
    assert checksums.unsealed({"format": 1}) == {"format": 1}
    assert checksums.unsealed([1]) == [1]
