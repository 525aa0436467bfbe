"""Training images whose JPEG files are decoded and augmented on the device of the training; workers only read them.

TorchCodec decodes (on a CUDA GPU by nvJPEG). Other formats, photographs that are to be turned and channels that are to
be converted are decoded and augmented by the workers, as ever. Images, order and augmentation are those of
`TrainLoader`; pixels may differ by some levels, because two decoders round differently.
"""

import importlib
import io
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from mage import images
from mage.data.batches import Batch
from mage.data.image_sets import file_of
from mage.data.loaders import Items, LoadedBatch, TrainLoader, collate, none_readable, note_corrupt
from mage.data.workers import compute
from mage.pil_modes import orientation

logger = logging.getLogger(__name__)
AT_ONCE = 32
"""Images that are whole on the device at a time: one of a camera takes 40 MB."""


class Packed(NamedTuple):
    """A part of a batch as a worker sends it: few large tensors, because sending each has a cost."""

    number: int
    """Of the part, counted over all steps."""
    epoch: int
    indices: list[int]
    corrupt: dict[str, str]
    """Files that could not be read, with the reasons."""
    lengths: list[int]
    """Bytes of each image's file; 0: the worker has decoded and augmented it."""
    files: Tensor
    """All files behind each other, uint8 (bytes,)."""
    done: list[Tensor]
    """What the worker has decoded: the views, uint8 (n, c, h, w), and for pairs the second ones."""


class _Undecodable(RuntimeError):
    """A file is damaged, or of a kind that this decoder does not know."""


class DeviceImages:
    """The batches of a loader, on `device`."""

    def __init__(self, loader: TrainLoader, device: torch.device) -> None:
        """Raises ValueError if TorchCodec is not installed."""
        self.loader, self.device, self._decode = loader, device, _decoder()
        self.told = False

    def __iter__(self) -> Iterator[Batch]:
        loader = self.loader
        for packed in compute(self.packed, itertools.count(loader.start * loader.share.parts), loader.num_workers):
            batch, corrupt = self._batch(packed)
            note_corrupt(loader.dataset, corrupt)
            if batch is None:
                raise none_readable(loader.dataset, corrupt)
            yield {name: value.to(self.device) for name, value in batch.items()}

    def packed(self, number: int) -> Packed:
        """The files of part `number`; what a device does not decode is decoded here."""
        loader, done, corrupt = self.loader, Items([], [], {}, []), dict[str, str]()
        indices, files, epoch = list[int](), list[Tensor](), 0
        for epoch, index, loaded in loader.readable(*divmod(number, loader.share.parts), self._load, corrupt):
            indices.append(index)
            files.append(loaded if loaded.ndim == 1 else loaded.new_empty(0))
            if loaded.ndim == 3:
                loader.augment(done, loaded, epoch, index)
        views = [torch.stack(part) for part in (done.images, done.second) if part]
        content = torch.cat(files) if files else torch.empty(0, dtype=torch.uint8)
        return Packed(number, epoch, indices, corrupt, [len(file) for file in files], content, views)

    def _load(self, index: int) -> Tensor:
        """The bytes of a JPEG file that can be decoded as it is, else the image. Raises CorruptImage."""
        file = file_of(self.loader.dataset, index)
        if file is not None and is_plain_jpeg(*file):
            return torch.frombuffer(bytearray(file[0]), dtype=torch.uint8)
        return self.loader.load(index)

    def _batch(self, packed: Packed) -> LoadedBatch:
        try:
            return collate(self.loader.dataset, self._items(packed))
        except _Undecodable as error:
            if not self.told:
                self.told = True
                reason = str(error).splitlines()[0]
                logger.warning("a batch cannot be decoded on %s; the host decodes it: %s", self.device, reason)
            return self.loader.batch_of(packed.number)

    def _items(self, packed: Packed) -> Items:
        decoded = self._decoded([file for file in packed.files.split(packed.lengths) if len(file)])
        ready = zip(*(views.to(self.device) for views in packed.done), strict=True)
        items = Items([], [], packed.corrupt, [])
        for index, length in zip(packed.indices, packed.lengths, strict=True):
            if length:
                self.loader.augment(items, next(decoded), packed.epoch, index)
                continue
            first, *second = next(ready)
            items.indices.append(index)
            items.images.append(first)
            items.second.extend(second)
        return items

    def _decoded(self, files: list[Tensor]) -> Iterator[Tensor]:
        for start in range(0, len(files), AT_ONCE):
            try:
                decoded = self._decode(files[start : start + AT_ONCE], mode="UNCHANGED", device=self.device)
            except RuntimeError as error:
                raise _Undecodable(*error.args) from error
            yield from decoded


def is_plain_jpeg(data: bytes, channels: int) -> bool:
    """Whether a file is a JPEG of `channels` (1 or 3) that stands upright; its pixels are not read."""
    if not data.startswith(b"\xff\xd8") or channels not in images.PIL_MODES:
        return False
    try:
        with Image.open(io.BytesIO(data)) as image:
            plain = (image.format, image.mode, orientation(image)) == ("JPEG", images.PIL_MODES[channels], 1)
            return plain and image.width * image.height <= images.pixel_limit()
    except Exception:  # the header may be damaged; decoding then says so
        return False


def _decoder() -> Callable[..., list[Tensor]]:
    try:
        decode: Callable[..., list[Tensor]] = importlib.import_module("torchcodec.decoders").decode_jpeg
    except (ImportError, AttributeError, OSError, RuntimeError):  # it looks for its libraries at once
        raise ValueError(
            "data.decode_on=device takes the package torchcodec, 0.16 or newer: pip install 'mage-vision[decode]'"
        ) from None
    return decode
