"""Figures of a finished model: reconstructions, edits, samples, classes, and neighbours in feature space.

Letters: n images, c channels, h w pixels.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mage import atomic, checksums, images, pictures
from mage.pipeline import Mage
from mage.store.folder import CONFIG

RATIOS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
SHOWN = 8
"""Images in a row."""
RECORD = "drawn.json"
"""File beside the pictures: name -> checksum of the model's config.json. Times of files say nothing: clocks jump."""


@dataclass
class Gallery:
    """Draws the figures of one model into FOLDER/figures."""

    model: Mage
    shown: Float[Tensor, "n c h w"]
    """Real images in [0, 1]; the first are reconstructed and edited."""
    folder: Path
    num_samples: int = 100
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by part."""

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time of a block to `timings`, in seconds."""
        start = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start

    def draw(self) -> Tensor:
        """All figures; the samples, (num_samples, c, h, w)."""
        with self.timed("reconstruct_and_edit"):
            self.tokenizer()
            self.reconstructions()
            self.edits()
        with self.timed("generate"):
            samples = self.samples()
            self.classes()
        return samples

    def tokenizer(self) -> None:
        """What the tokenizer alone restores."""
        shown = self.shown[:SHOWN]
        restored = self.model.decode_tokens(self.model.encode(shown)).cpu().float()
        self.figure("tokenizer", pictures.labelled_rows([("original", shown), ("restored", restored)]))

    def reconstructions(self) -> None:
        """The paper's figure 2: one row per mask ratio."""
        shown = self.shown[:SHOWN]
        rows = [("original", shown)]
        for ratio in RATIOS:
            rows.append((f"{ratio:.0%} masked", self.model.reconstruct(shown, mask_ratio=ratio).cpu()))
        self.figure("reconstruct", pictures.labelled_rows(rows))

    def edits(self) -> None:
        """Inpainting, outpainting and uncropping."""
        shown = self.shown[:SHOWN]
        height, width = self.model.image_size
        rows, columns = self.model.require_tokenizer().grid
        cell = self.model.token_size
        margins = [max(1, round(count / 4)) * long for count, long in zip((rows, columns), cell, strict=True)]
        inner = tuple(slice(margin, -margin) for margin in margins)
        masks = {name: torch.zeros(height, width, dtype=torch.bool) for name in ("inpaint", "outpaint", "uncrop")}
        masks["inpaint"][inner] = True
        masks["outpaint"][rows // 2 * cell[0] :] = True
        masks["uncrop"][:] = True
        masks["uncrop"][inner] = False
        strips = [("original", shown)]
        for name, mask in masks.items():
            strips.append((f"{name}: given", torch.where(mask, 0.5, shown)))
            strips.append((name, self.model.edit(shown, mask, seed=1).cpu()))
        self.figure("edit", pictures.labelled_rows(strips))

    def samples(self) -> Tensor:
        """Fresh images with seed 0."""
        samples = self.model.generate(self.num_samples, seed=0, batch_size=250).cpu()
        self.figure("samples", images.enlarge(images.make_grid(samples[:100]), 700))
        return samples

    def classes(self) -> None:
        """Samples by class, for at most ten classes of a model that has classes."""
        count = self.model.require_generator().config.num_classes
        if not count:
            return
        names = self.model.class_names or tuple(str(number) for number in range(count))
        shown = names[: min(10, count)]
        samples = self.model.generate(
            10 * len(shown), seed=0, classes=[number for number in range(len(shown)) for _ in range(10)], batch_size=100
        )
        rows = list(zip(shown, samples.cpu().split(10), strict=True))
        self.figure("classes", pictures.labelled_rows(rows))

    def neighbours(self) -> None:
        """Images and those of the others whose features are most alike, by cosine."""
        features = functional.normalize(self.model.features(self.shown).float().cpu(), dim=1)
        alike = (features @ features.T).fill_diagonal_(-2.0)
        nearest = alike.topk(min(SHOWN, len(self.shown) - 1), dim=1).indices
        rows = [("image", self.shown[:SHOWN])]
        for place in range(nearest.shape[1]):
            rows.append((f"{place + 1} of {len(self.shown) - 1}", self.shown[nearest[:SHOWN, place]]))
        self.figure("neighbours", pictures.labelled_rows(rows, side=48))

    def figure(self, name: str, picture: Tensor) -> None:
        """Write FOLDER/figures/NAME.png, and which state of the model in FOLDER it shows."""
        images.save_png(self.folder / "figures" / f"{name}.png", picture)
        state = state_of(self.folder)
        if state:
            atomic.write_json(
                self.folder / "figures" / RECORD, checksums.sealed(drawn_states(self.folder) | {name: state})
            )


def state_of(run: Path) -> str:
    """Checksum of the settings and weights of the model in a run folder; "" without a model."""
    config = run / "model" / CONFIG
    return checksums.of_file(config) if config.is_file() else ""


def drawn_states(run: Path) -> dict[str, str]:
    """The state of the model that each figure of a run folder shows; figures of unknown origin are not in it."""
    try:
        values = checksums.unsealed(json.loads((run / "figures" / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(name): str(state) for name, state in values.items()} if isinstance(values, dict) else {}
