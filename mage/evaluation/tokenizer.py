"""All registered metrics of a tokenizer, from one pass over a data set.

Letters: n images, c channels, H W pixels, gh gw pixels of a grid.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from mage import images, pictures
from mage.data.datasets import ImageDataset
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.evaluation import codes, reconstruction, reconstruction_distance  # noqa: F401  # they register
from mage.evaluation.metric import Measured, measure
from mage.evaluation.tokenizer_metrics import TOKENIZER_METRICS, Reconstructions, Tokenized, TokenizerProtocol
from mage.pipeline import Mage
from mage.tokenizers import Tokenizer

SHOWN = 8
"""Images in the picture."""
QUICK = ("pixels", "codes")
"""Metrics of `reconstruction_quality`."""


@dataclass
class TokenizerQuality(Measured):
    """Metrics of a tokenizer, and a picture of reconstructions."""

    images: int = 0
    picture: Tensor | None = field(default=None, repr=False)
    """Rows of originals, reconstructions and errors, (c, gh, gw)."""


def evaluate_tokenizer(
    model: Mage, dataset: ImageDataset, protocol: TokenizerProtocol | None = None
) -> TokenizerQuality:
    """Measure a tokenizer on all images of a data set, in one pass; of the images, only the tokens stay in memory."""
    protocol = protocol or TokenizerProtocol()
    metrics = {name: TOKENIZER_METRICS.get(name)(protocol) for name in TOKENIZER_METRICS}
    all_ids, all_labels, psnr, shown = [], [], [], None
    transform = build_transform(TransformConfig(size=model.image_size))
    for batch in evaluation_batches(dataset, transform, batch_size=protocol.batch_size):
        originals = images.to_float(batch["images"])
        ids = model.encode(originals, batch_size=protocol.batch_size).cpu()
        decoded = model.decode_tokens(ids, batch_size=protocol.batch_size).cpu().float()
        for metric in metrics.values():
            metric.update(Reconstructions(originals, decoded))
        psnr.append(images.psnr(decoded, originals))
        all_ids.append(ids)
        all_labels.append(batch["labels"])
        shown = (originals[:SHOWN], decoded[:SHOWN]) if shown is None else shown
        if protocol.on_images is not None:
            protocol.on_images(len(originals))
    ids, labels = torch.cat(all_ids), torch.cat(all_labels)
    tokenized = Tokenized(
        ids, None if dataset.labels is None else labels, model.require_tokenizer().num_codes,
        float(torch.cat(psnr).mean()), model.image_size, model.notes.get("tokenizer", {}),
        lambda pixels: model.encode(pixels, batch_size=protocol.batch_size).cpu(),
    )  # fmt: skip
    assert shown is not None
    measured = measure(metrics, tokenized)
    return TokenizerQuality(**vars(measured), images=len(ids), picture=side_by_side(*shown))


def reconstruction_quality(tokenizer: Tokenizer, pixels: UInt8[Tensor, "n c H W"]) -> Measured:
    """PSNR, SSIM, absolute error and codebook usage; computed on the device of the tokenizer's weights."""
    metrics = {name: TOKENIZER_METRICS.get(name)(TokenizerProtocol()) for name in QUICK}
    device, ids, psnr = _device_of(tokenizer), [], []
    for part in pixels.split(256):
        targets = images.to_float(part.to(device))
        tokens = tokenizer.encode(targets)
        batch = Reconstructions(targets.cpu(), tokenizer.decode(tokens).cpu().float())
        for metric in metrics.values():
            metric.update(batch)
        psnr.append(images.psnr(batch.reconstructions, batch.originals))
        ids.append(tokens.cpu())
    return measure(metrics, Tokenized(torch.cat(ids), None, tokenizer.num_codes, float(torch.cat(psnr).mean())))


def rows_of_reconstructions(tokenizer: Tokenizer, pixels: UInt8[Tensor, "n c H W"]) -> Float[Tensor, "c gh gw"]:
    """A grid with rows of eight originals and their reconstructions in turn."""
    originals = images.to_float(pixels.to(_device_of(tokenizer)))
    decoded = tokenizer.decode(tokenizer.encode(originals))
    rows = [part for pair in zip(originals.split(8), decoded.split(8), strict=True) for part in pair]
    return images.make_grid(torch.cat(rows).cpu(), columns=8)


def side_by_side(
    originals: Float[Tensor, "n c H W"], reconstructions: Float[Tensor, "n c H W"]
) -> Float[Tensor, "c gh gw"]:
    """Rows of originals, reconstructions, and their absolute difference, enlarged while nearly all of it fits."""
    error = (originals - reconstructions).abs()
    large = float(error.flatten()[:: max(1, error.numel() // 1_000_000)].quantile(0.995))
    factor = next((factor for factor in (8, 4, 2) if factor * large <= 1), 1)
    shown = (factor * error).clamp(0, 1)
    rows = [("original", originals), ("reconstruction", reconstructions), (f"error x {factor}", shown)]
    return pictures.labelled_rows(rows)


def _device_of(tokenizer: Tokenizer) -> torch.device:
    return next(tokenizer.parameters()).device if isinstance(tokenizer, nn.Module) else torch.device("cpu")
