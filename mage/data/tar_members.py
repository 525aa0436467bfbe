"""The files in a tar: their names, and where their bytes are. Only headers are read, and nothing is ever unpacked.

A tar is a header of 512 bytes and the bytes of the file, padded to a multiple of 512, again and again, and two blocks
of zeros at its end (POSIX.1-2001, "pax"). Shards come from anywhere, so every number is checked against the size of the
shard before it is used, and what a shard has no use for is refused: links, devices, and names that lead out of it.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from mage.data.storage import BrokenFile, Stored, read

BLOCK = 512
AHEAD = 2**23
"""Bytes that are read at once."""
MOST_HEADER = 2**20
"""Largest size of a name or of pax settings."""
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
REFUSED = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    start: int
    """Position of its first byte."""
    size: int
    """Number of bytes."""


class TarReader:
    """Goes through a tar once, from beginning to end, and reads members' bytes on the way."""

    def __init__(self, stored: Stored, fetch: Callable[[Stored, int, int], bytes] = read) -> None:
        """fetch: gives the bytes of the tar from a position on, as `storage.read`."""
        self._stored, self._fetch = stored, fetch
        self._first, self._bytes = 0, b""

    def members(self) -> Iterator[Member]:
        """The tar's files in order. Raises BrokenFile for anything that is no plain, whole tar of files."""
        first = self._content(0, min(8, self._stored.size))
        packed = next((kind for magic, kind in COMPRESSIONS.items() if first.startswith(magic)), None)
        if packed is not None:
            raise self._broken(f"is compressed ({packed}): unpack it to a plain .tar")
        place = 0
        long_name: bytes | None = None
        long_size: int | None = None
        while True:
            if place + BLOCK > self._stored.size:
                raise self._broken("is cut off: the two blocks of zeros at the end of a tar are missing")
            header = self._content(place, BLOCK)
            if not any(header):
                return
            name, size, kind = self._parsed(header, place)
            start = place + BLOCK
            if kind in (b"x", b"L"):
                if size > MOST_HEADER:
                    raise self._broken(f"declares a name of {size:,} bytes")
                text = self._content(start, size)
                if kind == b"L":
                    long_name = text.rstrip(b"\0")
                else:
                    long_name, long_size = self._settings(text, long_name, long_size)
            elif kind != b"g":
                name, size = long_name or name, size if long_size is None else long_size
                long_name = long_size = None
                self._check(name, kind)
                self._check_size(name, start, size)
                if kind != b"5":
                    yield Member(_text(name.removeprefix(b"./")), start, size)
            self._check_size(name, start, size)
            place = start + -(-size // BLOCK) * BLOCK

    def content(self, member: Member, most: int) -> bytes:
        """The bytes of a member. Raises BrokenFile if there are more than `most`."""
        if member.size > most:
            raise self._broken(f"holds {member.name} of {member.size:,} bytes; such a file has at most {most:,}")
        return self._content(member.start, member.size)

    def _content(self, start: int, count: int) -> bytes:
        last = self._first + len(self._bytes)
        if start < self._first or start + count > last:
            ahead = min(max(count, AHEAD), self._stored.size - start)
            self._first, self._bytes = start, self._fetch(self._stored, start, ahead)
        offset = start - self._first
        return self._bytes[offset : offset + count]

    def _parsed(self, header: bytes, place: int) -> tuple[bytes, int, bytes]:
        """Name, size and kind of a header, whose sum is right."""
        try:
            told = int(header[148:156].strip(b" \0") or b"0", 8)
            size = _number(header[124:136])
        except ValueError:
            told, size = -1, -1
        if told != sum(header) - sum(header[148:156]) + 8 * ord(" ") or size < 0:
            raise self._broken(f"is no tar, or damaged at byte {place:,}")
        name = header[:100].split(b"\0")[0]
        prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
        return b"/".join(filter(None, (prefix, name))), size, header[156:157].strip(b"\0") or b"0"

    def _settings(self, text: bytes, name: bytes | None, size: int | None) -> tuple[bytes | None, int | None]:
        """Name and size in pax settings, lines of the form "27 path=a/long/name"."""
        while text:
            length = text.partition(b" ")[0]
            if not length.isdigit() or not len(length) + 1 < int(length[:9]) <= len(text):
                raise self._broken("has damaged pax settings")
            key, _, value = text[len(length) + 1 : int(length) - 1].partition(b"=")
            text = text[int(length) :]
            if key == b"path":
                name = value
            if key == b"size":
                if not value.isdigit() or len(value) > 18:
                    raise self._broken("has damaged pax settings")
                size = int(value)
            if key.startswith(b"GNU.sparse"):
                raise self._broken("holds a sparse file: write the tar without --sparse")
        return name, size

    def _check(self, name: bytes, kind: bytes) -> None:
        shown = repr(_text(name))[:80]
        if kind not in (b"0", b"5", b"7"):
            raise self._broken(f"holds {REFUSED.get(kind, 'something else than a file')}, {shown}: only files")
        if name.startswith(b"/") or b"\\" in name or b".." in name.split(b"/") or not name or _has_drive(name):
            raise self._broken(f"holds the name {shown}, which leads out of it: names are relative, without ..")

    def _check_size(self, name: bytes, start: int, size: int) -> None:
        if size > self._stored.size - start:
            raise self._broken(
                f"is cut off, or lies: {repr(_text(name))[:80]} is said to have {size:,} bytes, and "
                f"{self._stored.size - start:,} bytes are left"
            )

    def _broken(self, reason: str) -> BrokenFile:
        return BrokenFile(self._stored.name, reason)


def _number(field: bytes) -> int:
    """A number in a header: octal, or binary behind a first byte of 128, as GNU tar writes large ones."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    return int(field.strip(b" \0") or b"0", 8)


def _text(name: bytes) -> str:
    """A name, with bytes that are not UTF-8 as backslash escapes."""
    return name.decode("utf-8", "backslashreplace")


def _has_drive(name: bytes) -> bool:
    """Whether a name begins with a drive of Windows, as in C:x.jpg."""
    return name[:1].isalpha() and name[1:2] == b":"
