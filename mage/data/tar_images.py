"""Images in tar shards of about a thousand images, for file systems that are slow with many small files.

A shard is an ordinary tar of PNG files, which WebDataset can read, too; with classes, each image has a .cls file.
"""

import io
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from mage import atomic, images
from mage.data.datasets import CorruptImage, Labels
from mage.images import SUFFIXES


def write_shard(path: str | Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write named files into a tar, atomically; the same files give the same bytes."""
    with atomic.replacing(path) as temporary, tarfile.open(temporary, "w") as shard:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            shard.addfile(entry, io.BytesIO(data))


@dataclass
class TarDataset:
    """All images in the .tar files of a folder, in order of their names; read one by one, never unpacked."""

    name: str
    places: list[tuple[Path, str, int, int]]
    """Shard, name in the shard, first byte, number of bytes."""
    channels: int = 3
    labels: Labels | None = None
    class_names: tuple[str, ...] = ()
    skipped: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, folder: str | Path, channels: int = 3) -> "TarDataset":
        """The images of a folder's shards. Raises ValueError if there are none, or one is damaged."""
        shards = sorted(Path(folder).glob("*.tar"))
        if not shards:
            raise ValueError(f"{folder} holds no .tar files")
        return cls.open_files(shards, channels)

    @classmethod
    def open_files(cls, shards: Sequence[Path], channels: int = 3) -> "TarDataset":
        """The same for a list of shards, at least one."""
        places = []
        for path in shards:
            try:
                with tarfile.open(path, "r:") as shard:
                    for entry in shard:
                        if entry.isfile() and entry.name.lower().endswith(SUFFIXES):
                            places.append((path, entry.name, entry.offset_data, entry.size))
            except (tarfile.TarError, OSError, EOFError) as error:
                raise ValueError(f"{path} is not a readable tar ({type(error).__name__})") from None
        return cls(shards[0].resolve().parent.name, places, channels)

    def __len__(self) -> int:
        return len(self.places)

    def load(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Image `index`. Raises CorruptImage."""
        path, name, start, size = self.places[index]
        with open(path, "rb") as shard:
            shard.seek(start)
            data = shard.read(size)
        try:
            return images.from_bytes(data, self.channels)
        except ValueError:
            raise CorruptImage(f"{path}/{name}") from None
