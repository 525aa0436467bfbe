"""Figures and metrics of a finished model: the content of a report.

Metrics are measured on test images or on new samples; `protocols` describes each in one line.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from mage import atomic, images, rng
from mage.data.datasets import ImageDataset, default_root, subset
from mage.data.loaders import decode_to_memory
from mage.evaluation.extractors import build_extractor
from mage.evaluation.generation import compare
from mage.evaluation.knn import NearestNeighbours
from mage.evaluation.linear_probe import LinearProbe, RawPixels
from mage.evaluation.metric import Measured
from mage.evaluation.representation import Representation, RepresentationProtocol
from mage.evaluation.sample_metrics import SamplesAndData
from mage.evaluation.samples import measure_samples
from mage.evaluation.seen import Reference, SeenImages, look_at
from mage.evaluation.suite import measure_representation
from mage.evaluation.tokenizer import reconstruction_quality, rows_of_reconstructions
from mage.pipeline import Mage
from mage.recipes.schema import Recipe
from mage.runs.inputs import load_images, open_data
from mage.tokenizers import VQGAN

MOST_JUDGED = 10_000
"""Training images up to which a judge is trained, and a classifier of raw pixels, while a report is made."""
MIRRORING = ("flip", "crop_flip")
"""Augmentations that mirror images."""
PROBES: dict[str, Callable[[], RepresentationProtocol]] = {
    "mean": lambda: LinearProbe(pool="mean"),
    "linear": LinearProbe,
    "lars": lambda: LinearProbe("lars"),
    "knn": NearestNeighbours,
    "pixels": RawPixels,
}
RATIOS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass
class Showcase:
    """Measures one model and draws its figures into a run folder."""

    model: Mage
    recipe: Recipe
    folder: Path
    data_root: str | None = None
    num_samples: int = 500
    judged: bool = True
    """Judge the samples, which may train a judge."""
    probes: tuple[str, ...] = ("mean", "linear", "lars", "knn", "pixels")
    """Classifiers of the features, of PROBES."""
    metrics: dict[str, float] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plain = replace(self.recipe.data.transform, augmentation="none")
        self._transform = plain
        self._train, self._test = (
            decode_to_memory(open_data(self.recipe.data.name, split, self.recipe, self.data_root))
            for split in ("train", "test")
        )
        order = torch.randperm(len(self._test), generator=rng.generator(0, "validation")).tolist()
        self._shown = images.to_float(load_images(self._test, order[:8], plain))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time of a block to `timings`, in seconds."""
        start = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start

    def run(self) -> None:
        """Measure and draw everything."""
        with self.timed("reconstruct_and_edit"):
            self.tokenizer_quality()
            self.reconstructions()
            self.edits()
        with self.timed("generate"):
            samples = self.samples()
            self.classes()
        if self.judged:
            with self.timed("judge_samples"):
                self.judge_samples(samples)
        with self.timed("probe"):
            self.features()

    def tokenizer_quality(self) -> None:
        """PSNR and codebook usage on test images."""
        tokenizer = self.model.tokenizer
        assert isinstance(tokenizer, VQGAN)
        part = _subset(self._test, 1000)
        with torch.inference_mode(), self.model.autocast():
            quality = reconstruction_quality(tokenizer, load_images(part, list(range(len(part))), self._transform))
            grid = rows_of_reconstructions(tokenizer, images.to_uint8(self._shown))
        self._keep(quality)
        self._figure("tokenizer", grid)
        atomic.write_text(self.folder / "codes.json", json.dumps(quality.details["codes_used"]))

    def reconstructions(self) -> None:
        """The paper's figure 2: one row per mask ratio."""
        rows = [("original", self._shown)]
        for ratio in RATIOS:
            rows.append((f"{ratio:.0%} masked", self.model.reconstruct(self._shown, mask_ratio=ratio).cpu()))
        self._figure("reconstruct", images.labelled_rows(rows))

    def edits(self) -> None:
        """Inpainting, outpainting and uncropping of test images."""
        height, width = self.model.image_size
        token = height // self.model.require_tokenizer().grid[0]
        inner, middle = slice(2 * token, -2 * token), slice(height // 2 // token * token, None)
        masks = {name: torch.zeros(height, width, dtype=torch.bool) for name in ("inpaint", "outpaint", "uncrop")}
        masks["inpaint"][inner, inner] = True
        masks["outpaint"][middle, :] = True
        masks["uncrop"][:] = True
        masks["uncrop"][inner, inner] = False
        rows = [("original", self._shown)]
        for name, mask in masks.items():
            rows.append((f"{name}: given", torch.where(mask, 0.5, self._shown)))
            rows.append((name, self.model.edit(self._shown, mask, seed=1).cpu()))
        self._figure("edit", images.labelled_rows(rows))

    def samples(self) -> Tensor:
        """Fresh images with seed 0."""
        samples = self.model.generate(self.num_samples, seed=0, batch_size=250).cpu()
        self._figure("samples", images.enlarge(images.make_grid(samples[:100], columns=10), 700))
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
        self._figure("classes", images.labelled_rows(rows))

    def judge_samples(self, samples: Tensor) -> None:
        """A judge's confidence, copies of training images, and distances where the extractor's package is there."""
        train, test = (load_images(part, list(range(len(part))), self._transform) for part in (self._train, self._test))
        few = self._train.labels is not None and len(train) <= MOST_JUDGED
        subject = SamplesAndData(
            samples,
            train,
            test,
            torch.from_numpy(self._train.labels) if few and self._train.labels is not None else None,
            mirrored=self.recipe.data.transform.augmentation in MIRRORING,
            cache=default_root() / "judges",
            precision=self.model.precision,
            device=self.model.device,
        )
        measured = measure_samples(subject)
        self._keep(measured)
        near = measured.details["near_copy_share"]
        closest = torch.tensor(near["distances"]).argsort()[:8]
        nearest = torch.tensor(near["training_images"])[closest]
        pairs = [("sample", samples[closest]), ("nearest training", images.to_float(train[nearest]))]
        self._figure("nearest", images.labelled_rows(pairs))
        if self.model.channels == 3:
            self._distances(samples, train, test)

    def _distances(self, samples: Tensor, train: Tensor, test: Tensor) -> None:
        """Metrics of generation against the test images, and those of as many training images."""
        try:
            extractor = build_extractor("efflite0", device=self.model.device)
        except ValueError:  # the extra is not installed; the report shows no distance then
            return

        def seen(pixels: Tensor) -> SeenImages:
            return look_at((part.to(self.model.device) for part in pixels.split(500)), extractor, len(pixels))

        reference = Reference.of("test", seen(test))
        chosen = torch.randperm(len(train), generator=rng.generator(0, "real sample"))[: len(samples)]
        self._keep(compare(seen(images.to_uint8(samples)), reference, extractor.name))
        self._keep(compare(seen(train[chosen]), reference, extractor.name, suffix="_real"))

    def features(self) -> None:
        """Linear probes and k-NN on features, and logistic regression on pixels."""
        if self._train.labels is None:
            return
        protocols = {name: PROBES[name]() for name in self.probes}
        if len(self._train.labels) > MOST_JUDGED:
            protocols.pop("pixels", None)
        subject = Representation(self.model, self._train, self._test, pool="both", transform=self._transform)
        self._keep(measure_representation(subject, protocols))

    def _keep(self, measured: Measured) -> None:
        self.metrics |= measured.metrics
        self.protocols |= measured.protocols

    def _figure(self, name: str, picture: Tensor) -> None:
        images.save_png(self.folder / "figures" / f"{name}.png", picture)


def _subset(dataset: ImageDataset, count: int) -> ImageDataset:
    order = torch.randperm(len(dataset), generator=rng.generator(0, "validation")).tolist()
    return subset(dataset, order[:count])
