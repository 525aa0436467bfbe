"""Image files of a folder, and their classes and splits."""

import functools
import hashlib
import logging
import os
from collections.abc import Collection
from pathlib import Path

from mage.pil_modes import SUFFIXES, UNREAD_SUFFIXES

logger = logging.getLogger(__name__)
TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
"""Folders beside train/ that hold test images; of both, small and capital letters are the same."""


def split_folders(names: Collection[str]) -> tuple[str, list[str]]:
    """Of these folders, the one of training images, "" without one, and those of test images."""
    train = [name for known in TRAIN_FOLDERS for name in sorted(names, reverse=True) if name.lower() == known]
    tests = [name for known in TEST_FOLDERS for name in sorted(names, reverse=True) if name.lower() == known]
    return (train[0] if train else ""), tests


def labelled_first(folder: Path, tests: list[str]) -> str:
    """The first of several test folders that has classes: ImageNet may have a test/ without labels besides val/."""
    if len(tests) == 1:
        return tests[0]
    return next((name for name in tests if classes_of(image_files(folder / name))), tests[0])


def image_files(root: Path) -> list[str]:
    """Names relative to `root` of all images below it, sorted; hidden files and folders are left out.

    Links to folders are followed last, and never into a folder that was already read, because links can form cycles.
    Folders that cannot be read are left out with a warning, as are photographs in formats that are not read.
    """
    names, unread = list[str](), 0
    visited: set[tuple[int, int]] = set()
    waiting = [str(root)]
    while waiting:
        links = []
        for top in waiting:
            for folder, folders, files in os.walk(top, onerror=_warn):
                status = os.stat(folder)
                place = (status.st_dev, status.st_ino)
                if place in visited:
                    folders.clear()
                    continue
                visited.add(place)
                folders[:] = [inside for inside in folders if not inside.startswith(".")]
                links += [link for inside in folders if os.path.islink(link := os.path.join(folder, inside))]
                below = Path(folder).relative_to(root).as_posix()
                prefix = "" if below == "." else f"{below}/"
                names += [prefix + name for name in files if name.lower().endswith(SUFFIXES) and name[0] != "."]
                unread += sum(name.lower().endswith(UNREAD_SUFFIXES) and name[0] != "." for name in files)
        waiting = sorted(links)
    if unread:
        _tell_unread(str(root), unread)
    return sorted(names)


@functools.cache  # a folder is looked through for each of its splits
def _tell_unread(root: str, count: int) -> None:
    logger.warning(
        "%s: %d photographs (%s) are left out, whose format is not read: convert them, such as to JPEG",
        root, count, ", ".join(UNREAD_SUFFIXES),
    )  # fmt: skip


def tell_outside(root: str, files: list[str]) -> None:
    """Warn, once, of a few images outside of class folders, because of which no image has a class."""
    outside = [file for file in files if "/" not in file]
    if 0 < len(outside) < len(files) / 2:
        _tell_outside(root, len(outside), outside[0])


@functools.cache
def _tell_outside(root: str, count: int, example: str) -> None:
    logger.warning(
        "%s: images have no classes, because %d of them, such as %s, lie in no folder of a class", root, count, example
    )


def _warn(error: OSError) -> None:
    logger.warning("the folder %s cannot be read (%s): its images are left out", error.filename, error.strerror)


def classes_of(files: list[str]) -> set[str]:
    """Names of the top folders; none if any image is outside of them."""
    return {file.split("/")[0] for file in files} if all("/" in file for file in files) else set()


def hold_out(files: list[str], split: str) -> list[str]:
    """A tenth of the files (at least one) for testing, chosen by hash of the name; the others for training."""
    if split == "all" or len(files) == 1:
        return files
    order = sorted(files, key=lambda file: hashlib.sha256(os.fsencode(file)).digest())
    test = set(order[: max(1, len(files) // 10)])
    return [file for file in files if (file in test) == (split == "test")]
