"""Token caches at a path, or in an object store, from which they are copied once.

Tokens are small: 512 bytes an image and view, a two-hundredth of a photograph. On a disk a cache of any size is read
through memory maps, which take no memory of their own; so one in a store is copied to the disk as it is, file by file.
"""

import contextlib
import hashlib
import logging
from pathlib import Path

from mage import atomic, locks
from mage.data.cache_index import INDEX, MOST_BYTES, damaged_file, labels_path, read_index, tokens_path
from mage.data.shard_copies import copy_file
from mage.data.storage import default_root, is_url, look_at, read_small
from mage.data.token_cache import TokenCache, is_cache

logger = logging.getLogger(__name__)


def open_cache(name: str | Path) -> TokenCache | None:
    """The token cache at a path or URL; None if there is none.

    Raises ValueError for one that is unfinished, damaged or out of reach. A copy that was cut short is continued, and
    files of a copy that were damaged are copied again.
    """
    if not is_url(name):
        return TokenCache(name) if is_cache(name) else None
    url = str(name).rstrip("/")
    index = None if url.endswith(".tar") else read_small(f"{url}/{INDEX}", MOST_BYTES)
    if index is None:
        return None
    folder = default_root() / "tokens" / hashlib.sha256(url.encode() + index).hexdigest()[:24]
    turn = folder.with_suffix(".lock")
    with locks.turns(turn):
        if not is_cache(folder):
            _copy(url, index, folder)
    try:
        return TokenCache(folder)
    except ValueError as error:
        if _is_unfinished(folder):
            raise
        logger.warning("the copy of %s: %s; damaged files are copied again", url, error)
    with locks.turns(turn):
        _mend(url, index, folder)
    try:
        return TokenCache(folder)
    except ValueError as error:
        raise ValueError(f"{url} is damaged itself, as its copy shows: {error}") from None


def _is_unfinished(folder: Path) -> bool:
    with contextlib.suppress(ValueError):
        return not read_index(folder).complete
    return False


def _copy(url: str, index: bytes, folder: Path) -> None:
    """Copy a cache; its index comes last, and says that all is there."""
    arriving = folder / "arriving"
    atomic.write_bytes(arriving / INDEX, index)
    try:
        shards = read_index(arriving).shards
    except ValueError as error:
        raise ValueError(str(error).replace(str(arriving), url)) from None
    for number in range(len(shards)):
        for path in (tokens_path(folder, number), labels_path(folder, number)):
            stored = look_at(f"{url}/{path.name}")
            if not path.is_file() or path.stat().st_size != stored.size:
                copy_file(stored, path)
    atomic.write_bytes(folder / INDEX, index)


def _mend(url: str, index: bytes, folder: Path) -> None:
    """Copy the files again that are missing, of another size or do not fit their checksums."""
    _copy(url, index, folder)
    kept = read_index(folder)
    for number in range(len(kept.shards)):
        for _ in range(2):  # tokens and labels
            damaged = damaged_file(folder, kept, number)
            if damaged is not None:
                copy_file(look_at(f"{url}/{damaged.name}"), damaged)
