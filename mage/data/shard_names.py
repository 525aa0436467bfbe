"""Which shards a name stands for: photos-{000000..000099}.tar, photos-*.tar, a folder of them, or one file.

Each may be on disk or in an object store. Braces are expanded without looking, so that a missing shard is noticed;
patterns and folders stand for what is there.
"""

import glob
import itertools
import os
import re
from pathlib import Path

from mage.data.image_folders import TEST_FOLDERS
from mage.data.storage import check_url, is_url, matches

MOST_SHARDS = 100_000
BRACES = re.compile(r"\{([^{}]*)\}")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")


def are_shards(name: str | Path) -> bool:
    """Whether a name stands for shards: by its form, or because it is a folder of them."""
    text = str(name)
    if is_url(text) or text.endswith((".tar", *COMPRESSED)):
        return True
    folder = Path(text).expanduser()
    return folder.is_dir() and any(_tars(str(folder / part)) for part in ("", "train", *TEST_FOLDERS))


def shard_names(name: str | Path, split: str) -> tuple[list[str], list[str] | None]:
    """Names of the shards of a split in order, and of the other split's, for a folder with train/ and test/.

    The second list is empty if both splits are in the same shards; None for a folder with train/ alone. Raises
    ValueError if there are none.
    """
    text = str(name) if is_url(name) else str(Path(name).expanduser())
    if is_url(text):
        check_url(text)
    if text.endswith(COMPRESSED):
        raise ValueError(f"{text} is compressed: images in it cannot be reached one by one; unpack it to a plain .tar")
    if text.endswith(".tar"):
        return _checked(_written(text), text), []
    parts = {part: _tars(_join(text, part)) for part in ("train", *TEST_FOLDERS)}
    test = next((shards for part, shards in parts.items() if part != "train" and shards), [])
    if parts["train"] and split != "all":
        if not test and split == "test":
            raise ValueError(f"{text} has train/ but no test/: add it, or give {text}/train to hold out a tenth")
        return (parts["train"], test or None) if split == "train" else (test, parts["train"])
    every = _tars(text) + [shard for shards in parts.values() for shard in shards]
    if not every:
        raise ValueError(f"{text} holds no .tar files: give a folder of shards, or a pattern such as {text}/x-*.tar")
    return _checked(every, text), []


def _join(folder: str, part: str) -> str:
    return "/".join(filter(None, (folder.rstrip("/"), part)))


def _tars(folder: str) -> list[str]:
    return matches(_join(folder if is_url(folder) else glob.escape(folder), "*.tar"))


def _written(pattern: str) -> list[str]:
    """Names that a pattern with braces, * or ? stands for; a file of exactly this name comes first.

    Of several names from braces each one is in the result, also if nothing matches it: it is then missing.
    """
    if not is_url(pattern) and os.path.isfile(pattern):
        return [pattern]
    found, names = list[str](), expand(pattern)
    for name in names:
        exact = not any(letter in name for letter in "*?[") or (not is_url(name) and os.path.isfile(name))
        matched = [name] if exact else matches(name)
        if not matched and len(names) == 1:
            raise ValueError(f"no file matches {pattern}")
        found += matched or [name]
    return found


def expand(pattern: str) -> list[str]:
    """Names for braces with a range {000..099} or a list {a,b}, as in a shell; a pattern without braces is itself."""
    choices, total = [], 1
    for place, part in enumerate(BRACES.split(pattern)):
        choices.append(_choices(part, pattern) if place % 2 else [part])
        total *= len(choices[-1])
        if total > MOST_SHARDS:
            raise ValueError(f"{pattern} stands for more than {MOST_SHARDS:,} shards: give fewer, larger ones")
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(part: str, pattern: str) -> list[str]:
    ends = re.fullmatch(r"(\d{1,12})\.\.(\d{1,12})", part)
    if ends is None:
        if "," not in part:
            raise ValueError(f"{pattern} has braces around {part!r}: write {{000000..000099}} or {{a,b}}")
        return part.split(",")
    first, last = (int(end) for end in ends.groups())
    if last < first or last - first >= MOST_SHARDS:
        raise ValueError(
            f"{pattern} counts from {first} to {last}: write the smaller number first, and at most {MOST_SHARDS:,}"
        )
    return [f"{number:0{len(ends[1])}d}" for number in range(first, last + 1)]


def _checked(names: list[str], pattern: str) -> list[str]:
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"{pattern} names {twice} twice")
    return names
