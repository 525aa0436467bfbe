"""Which names mean a model on the Hugging Face Hub. Needs neither PyTorch nor a connection."""

import re
from dataclasses import dataclass
from pathlib import Path

PREFIX = re.compile(r"hf:/{1,2}")
"""A path object of hf://user/name has a single slash."""
PART = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
NAME = re.compile(rf"({PART}/{PART})(?:@([\w./-]+))?")


@dataclass(frozen=True)
class HubName:
    """A model on the Hub."""

    model: str
    """user/name"""
    revision: str | None = None
    """branch, tag or commit; None: the newest of main"""

    def __str__(self) -> str:
        return self.model + (f"@{self.revision}" if self.revision else "")


def hub_name(path: str | Path, revision: str | None = None) -> HubName | None:
    """The hub model that a name can mean: user/name, user/name@revision, hf://user/name. None for anything else.

    Raises ValueError for hf:// with something else behind it, and for two revisions. A name without hf:// whose first
    part is a folder in the working directory is None: it is a path with a slip of the pen.
    """
    text = path.as_posix() if isinstance(path, Path) else path
    prefix = PREFIX.match(text)
    name = text[prefix.end() :] if prefix else text
    match = NAME.fullmatch(name)
    if match is None or ".." in name or "--" in match[1]:
        if prefix:
            raise ValueError(f"{name!r} is no name of a hub model: give hf://user/name or hf://user/name@revision")
        return None
    if not prefix and Path(name.split("/")[0]).is_dir():
        return None
    if revision is not None and match[2] is not None:
        raise ValueError(f"two revisions are given, {match[2]} in {name} and {revision}: leave one out")
    return HubName(match[1], match[2] or revision)


def name_to_write(name: str, revision: str | None = None) -> HubName:
    """The hub model to upload to. Raises ValueError for anything but user/name, with a branch or without."""
    try:
        shared = hub_name(name if PREFIX.match(name) else f"hf://{name}", revision)
    except ValueError as error:
        raise ValueError(f"cannot upload to {name!r}: {error}") from None
    assert shared is not None
    return shared
