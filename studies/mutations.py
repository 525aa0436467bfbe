"""Damaged and hostile versions of files, for `fuzz.py`: of bytes, values, headers and parts; sums are made anew."""

import copy
import io
import json
import random
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import yaml

from mage import checksums

NUMBERS = (0, -1, 1, 2, 7, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**63, 10**18, 10**30, 1e308, 5e-324, -0.5)
SCRIPT = "</script><script>alert(1)</script>"
"""Text that a page must not contain as it is."""
VALUES = (
    *NUMBERS, float("nan"), float("inf"), None, True, False, "", "x", "../../etc/passwd", "/dev/zero", "\x00",
    "a" * 5000, "🙂", SCRIPT, [], {}, [[]], [None], {"": None}, "1", "nan",
)  # fmt: skip
Mutation = Callable[[bytes, random.Random], bytes]


def of_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four changes of bits, numbers, pieces and length."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = len(changed)
        at = rng.randrange(size + 1) if rng.random() < 0.6 else min(rng.randrange(600), size)
        length = rng.choice((1, 2, 4, 8, 64, 1000))
        kind = rng.randrange(7)
        if kind == 0 and at < size:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            number = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1))
            width = rng.choice((1, 2, 4, 8))
            changed[at : at + width] = (number % 256**width).to_bytes(width, rng.choice(("little", "big")))
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = changed[at : at + length] * rng.choice((1, 2, 50))
        elif kind == 5:
            changed[at : at + length] = rng.randbytes(length)
        else:
            changed[at : at + length] = bytes(length)
    return bytes(changed)


def of_tree(tree: Any, rng: random.Random) -> Any:
    """A copy of nested lists and dicts, in which one to three values were replaced, removed, added or buried."""
    root = {"": copy.deepcopy(tree)}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        parent, key = _place(root, rng)
        kind = rng.randrange(8)
        if kind == 0 and parent is not root:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(("", "x", "kind", "name", "size", "width", "__class__"))] = rng.choice(VALUES)
        elif kind == 2:
            for _ in range(rng.choice((1, 30, 2000))):
                parent[key] = [parent[key]]
        elif kind == 3 and isinstance(parent[key], list):
            parent[key] = parent[key] * rng.choice((0, 2, 100))
        elif kind == 4 and isinstance(parent[key], int | float) and parent[key] == parent[key]:
            parent[key] = rng.choice(
                (-parent[key], parent[key] + 1, parent[key] * 10**6, parent[key] / 3, str(parent[key]))
            )
        else:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
    return root[""]


def _place(root: dict[str, Any], rng: random.Random) -> tuple[Any, Any]:
    parent, key = root, ""
    while isinstance(parent[key], dict | list) and parent[key] and rng.random() < 0.85:
        parent = parent[key]
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
    return parent, key


def of_json(data: bytes, rng: random.Random) -> bytes:
    """Of the values, mostly; the text may be no JSON after earlier changes, then of the bytes."""
    if rng.random() < 0.2:
        return of_bytes(data, rng)
    try:
        return json.dumps(of_tree(json.loads(data), rng)).encode()
    except (ValueError, RecursionError):
        return of_bytes(data, rng)


def of_yaml(data: bytes, rng: random.Random) -> bytes:
    """The same, and aliases that grow without end."""
    if rng.random() < 0.05:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, rng.choice((3, 9, 30)))]
        return "\n".join(lines).encode() + b"\n" + data
    if rng.random() < 0.2:
        return of_bytes(data, rng)
    try:
        return yaml.safe_dump(of_tree(yaml.safe_load(data), rng)).encode()
    except (ValueError, RecursionError, yaml.YAMLError):
        return of_bytes(data, rng)


def of_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Mostly of the header, whose length is written anew."""
    size = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3 or size > len(data) - 8:
        return of_bytes(data, rng)
    header = of_json(data[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def of_npy(data: bytes, rng: random.Random) -> bytes:
    """Mostly of the header, which is Python's text of a dict."""
    header, end = data[10:128], data[128:]
    if rng.random() < 0.4 or len(data) < 128:
        return of_bytes(data, rng)
    words = (
        b"(99999999999,)", b"(-1,)", b"(2, 3" + b", 1" * 40 + b")", b"()", b"'|O'", b"'<f8'", b"'|V0'",
        b"'|S999999999'", b"[('a', '<i4'), ('b', '|O')]", b"(1e9,)", b"(" * 60, b"True",
        b"0x7fffffffffffffff,", b"__import__('os')",
    )  # fmt: skip
    at = rng.randrange(len(header))
    word = rng.choice(words)
    return data[:10] + (header[:at] + word + header[at + len(word) :])[:118].ljust(118) + end


def of_zip(data: bytes, rng: random.Random) -> bytes:
    """Mostly of one member, which gets a true checksum, for one that is false is refused at once."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # it was damaged before
        members = {}
    if not members or rng.random() < 0.2:
        return of_bytes(data, rng)
    name = rng.choice(list(members))
    members[name] = (of_npy if name.endswith(".npy") else of_bytes)(members[name], rng)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return made.getvalue()


FIELDS = ((0, 100), (100, 108), (108, 116), (124, 136), (136, 148), (156, 157), (157, 257), (257, 265), (345, 500))
"""Of a tar header: name, mode, user, size, time, type, link, format, beginning of the name."""


def of_tar(data: bytes, rng: random.Random) -> bytes:
    """Mostly of a member's header, which gets a true sum."""
    heads = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not heads or rng.random() < 0.2:
        return of_bytes(data, rng)
    changed, at = bytearray(data), rng.choice(heads)
    first, end = rng.choice(FIELDS)
    words = (
        b"../../etc/passwd", b"/etc/passwd", b"77777777777", b"00000000000", b"-0000000001",
        b"\x80" + bytes(10) + b"\xff", b"\xff" * 12,
        b"1", b"2", b"5", b"6", b"L", b"K", b"x", b"g", b"S", b"a.png", b"", rng.randbytes(end - first),
    )  # fmt: skip
    changed[at + first : at + end] = rng.choice(words)[: end - first].ljust(end - first, b"\0")
    head = changed[at : at + 512]
    head[148:156] = b" " * 8
    changed[at + 148 : at + 156] = b"%06o\0 " % sum(head)
    return bytes(changed)


def of_png(data: bytes, rng: random.Random) -> bytes:
    """Mostly of one chunk, or its place, with a true checksum."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks or rng.random() < 0.2:
        return of_bytes(data, rng)
    number = rng.randrange(len(chunks))
    kind, body = chunks[number]
    if rng.random() < 0.3:
        other = rng.choice((b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"PLTE", b"tRNS", b"acTL", b"fdAT", b"gAMA"))
        bomb = b"a\0\0" + zlib.compress(bytes(2**22)) if rng.random() < 0.5 else rng.randbytes(rng.choice((0, 4, 90)))
        chunks.insert(rng.randrange(len(chunks) + 1), (other, bomb))
    else:
        chunks[number] = (kind, of_bytes(body, rng))
    if rng.random() < 0.1:
        chunks.append(chunks.pop(rng.randrange(len(chunks))))
    pieces = [
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    ]
    return data[:8] + b"".join(pieces)


def sealed(data: bytes, rng: random.Random) -> bytes:
    """Of JSON that holds a checksum of its values, which is made anew."""
    changed = of_json(data, rng)
    try:
        values = json.loads(changed)
    except (ValueError, RecursionError):
        return changed
    return json.dumps(checksums.sealed(values)).encode() if isinstance(values, dict) else changed
