"""Metrics and figures of a finished model: the content of a report.

Metrics are measured on test images or on new samples; `protocols` describes each in one line.
"""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from mage import atomic, images, pictures, rng
from mage.data.datasets import default_root, spread
from mage.data.loaders import decode_to_memory
from mage.data.transforms import MIRRORING
from mage.evaluation.extractors import build_extractor
from mage.evaluation.features import NoClasses
from mage.evaluation.fewshot import FewShot
from mage.evaluation.generation import compare
from mage.evaluation.knn import NearestNeighbours
from mage.evaluation.linear_probe import LinearProbe, RawPixels
from mage.evaluation.metric import Measured
from mage.evaluation.near_copies import TEST_IMAGES
from mage.evaluation.representation import Representation, RepresentationProtocol
from mage.evaluation.sample_metrics import SamplesAndData
from mage.evaluation.samples import measure_samples
from mage.evaluation.seen import Reference, SeenImages, look_at
from mage.evaluation.suite import measure_representation
from mage.evaluation.tokenizer import reconstruction_quality
from mage.models.pooling import LAST_BLOCKS, Pool
from mage.pipeline import Mage
from mage.recipes.schema import Recipe
from mage.runs.gallery import SHOWN, Gallery
from mage.runs.inputs import load_images, load_labelled, open_data
from mage.tokenizers import VQGAN

logger = logging.getLogger(__name__)
MOST_JUDGED = 10_000
"""Training images up to which a judge is trained, and a classifier of raw pixels, while a report is made."""
COMPARED_BYTES = 1 << 31
"""Of the training images, and of the test images, that samples are compared with; of more, so many spread over them."""
PROBES: dict[str, Callable[[], RepresentationProtocol]] = {
    "mean": lambda: LinearProbe(pool="mean"),
    "linear": LinearProbe,
    "last4": lambda: LinearProbe(pool="last4"),
    "lars": lambda: LinearProbe("lars"),
    "knn": NearestNeighbours,
    "pixels": RawPixels,
    "fewshot": lambda: FewShot(counts=(25,)),
}
"""Classifiers of the features, by the names that `Showcase` takes."""
QUICK = ("mean", "linear", "lars", "knn", "pixels")
"""Those of every report."""


@dataclass
class Showcase:
    """Measures one model and draws its figures into a run folder."""

    model: Mage
    recipe: Recipe
    folder: Path
    data_root: str | None = None
    num_samples: int = 500
    probes: tuple[str, ...] = QUICK
    """Classifiers of the features, of PROBES."""
    metrics: dict[str, float] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, list[float]] = field(default_factory=dict)
    """95 % intervals, low and high, of metrics that have one."""

    def __post_init__(self) -> None:
        self._transform = replace(self.recipe.data.transform, augmentation="none")
        self._train, self._test = (
            decode_to_memory(open_data(self.recipe.data.name, split, self.recipe, self.data_root))
            for split in ("train", "test")
        )
        shown = images.to_float(self._test_images(SHOWN))
        self._gallery = Gallery(self.model, shown, self.folder, self.num_samples, self.timings)

    def run(self) -> None:
        """Measure and draw everything."""
        timed = self._gallery.timed
        with timed("reconstruct_and_edit"):
            self.tokenizer_quality()
        samples = self._gallery.draw()
        with timed("judge_samples"):
            self.judge_samples(samples)
        with timed("probe"):
            self.features()

    def tokenizer_quality(self) -> None:
        """PSNR and codebook usage on test images."""
        tokenizer = self.model.tokenizer
        assert isinstance(tokenizer, VQGAN)
        with torch.inference_mode(), self.model.autocast():
            quality = reconstruction_quality(tokenizer, self._test_images(1000))
        self._keep(quality)
        atomic.write_text(self.folder / "codes.json", json.dumps(quality.details["codes_used"]))

    def judge_samples(self, samples: Tensor) -> None:
        """A judge's confidence, copies of training images, and distances where the extractor's package is there."""
        most = COMPARED_BYTES // (self.model.channels * math.prod(self.model.image_size))
        train, labels = load_labelled(self._train, spread(len(self._train), most), self._transform)
        test = load_images(self._test, spread(len(self._test), most), self._transform)
        judged = labels is not None and len(train) <= MOST_JUDGED and len(labels.unique()) > 1
        subject = SamplesAndData(
            samples,
            train,
            test,
            labels if judged else None,
            mirrored=self.recipe.data.transform.augmentation in MIRRORING,
            restored=self._restored(test[spread(len(test), TEST_IMAGES)]),
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
        self._gallery.figure("nearest", pictures.labelled_rows(pairs))
        if self.model.channels == 3:
            self._distances(samples, train, test)

    def _test_images(self, count: int) -> Tensor:
        """Random test images, always the same ones, cropped to size: uint8 (n, c, h, w)."""
        order = torch.randperm(len(self._test), generator=rng.generator(0, "validation")).tolist()
        return load_images(self._test, order[:count], self._transform)

    def _restored(self, pixels: Tensor) -> Tensor:
        """Images after the tokenizer, on the CPU."""
        parts = (images.to_float(part).to(self.model.device) for part in pixels.split(250))
        return torch.cat([self.model.decode_tokens(self.model.encode(part)).cpu() for part in parts])

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
        """Linear probes and k-NN on features, and logistic regression on pixels; nothing where no classes are known."""
        protocols = {name: PROBES[name]() for name in self.probes}
        if len(self._train) > MOST_JUDGED:
            protocols.pop("pixels", None)
        if self.model.require_transformer().config.depth < LAST_BLOCKS:
            protocols.pop("last4", None)
        try:
            pools: tuple[Pool, ...] = ("both", "last4")
            for pool in pools:
                wanted = {name: probe for name, probe in protocols.items() if (name == "last4") == (pool == "last4")}
                if wanted:
                    subject = Representation(self.model, self._train, self._test, pool=pool, transform=self._transform)
                    self._keep(measure_representation(subject, wanted))
        except NoClasses as reason:
            logger.warning("the features are not measured: %s", reason)

    def _keep(self, measured: Measured) -> None:
        self.metrics |= measured.metrics
        self.protocols |= measured.protocols
        for name, details in measured.details.items():
            if isinstance(details.get("interval"), list):
                self.intervals[name] = [round(bound, 4) for bound in details["interval"]]
