"""Figures and metrics of a finished model: the content of a report.

Metrics are measured on test images or on new samples; `protocols` describes each in one line.
"""

import functools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from mage import atomic, images, rng
from mage.data.datasets import ImageDataset, subset
from mage.data.loaders import decode_to_memory
from mage.evaluation.features import Features, extract_features
from mage.evaluation.frechet import FeatureStatistics, frechet_distance, image_statistics
from mage.evaluation.judge import judge, near_copy_share, nearest_training_images, train_judge
from mage.evaluation.knn import knn
from mage.evaluation.linear_probe import LarsConfig, lars_probe, lbfgs_probe, raw_pixel_accuracy
from mage.evaluation.reconstruction import reconstruction_quality, rows_of_reconstructions
from mage.pipeline import Mage
from mage.recipes.schema import Recipe
from mage.runs.inputs import load_images, open_data
from mage.tokenizers import VQGAN

RATIOS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass
class Showcase:
    """Measures one model and draws its figures into a run folder."""

    model: Mage
    recipe: Recipe
    folder: Path
    data_root: str | None = None
    num_samples: int = 500
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
        with self.timed("judge_samples"):
            self.judge_samples(samples)
        with self.timed("probe"):
            self.features()

    def tokenizer_quality(self) -> None:
        """PSNR and codebook usage on test images."""
        tokenizer = self.model.tokenizer
        assert isinstance(tokenizer, VQGAN)
        part = _random_subset(self._test, 1000)
        with torch.inference_mode(), self.model.autocast():
            quality = reconstruction_quality(tokenizer, load_images(part, list(range(len(part))), self._transform))
            grid = rows_of_reconstructions(tokenizer, images.to_uint8(self._shown))
        self.metrics |= quality.metrics
        self.protocols["psnr_db"] = f"mean over {len(part):,} test images"
        self._figure("tokenizer", grid)
        atomic.write_text(self.folder / "codes.json", json.dumps({"counts": quality.code_counts.tolist()}))

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
        rows = [
            (names[number], self.model.generate(10, seed=0, classes=number).cpu()) for number in range(min(10, count))
        ]
        self._figure("classes", images.labelled_rows(rows))

    def judge_samples(self, samples: Tensor) -> None:
        """A classifier's confidence, copies of training images, and the Frechet distance if it is installed."""
        train = images.to_float(load_images(self._train, list(range(len(self._train))), self._transform))
        test = images.to_float(load_images(self._test, list(range(len(self._test))), self._transform))
        near = nearest_training_images(samples, train)
        self.metrics["near_copy_share"] = near_copy_share(near, nearest_training_images(test[:1000], train))
        self.protocols["near_copy_share"] = "pixel L2, below the first percentile of up to 1,000 test images"
        closest = near.distances.argsort()[:8]
        pairs = [("sample", samples[closest]), ("nearest training", train[near.indices[closest]])]
        self._figure("nearest", images.labelled_rows(pairs))
        if self._train.labels is not None and len(train) <= 10_000:
            network = train_judge(train, torch.from_numpy(self._train.labels))
            verdict, real = judge(network, samples), judge(network, test)
            self.metrics["sample_confident_share"] = verdict.confident_share
            self.metrics["real_confident_share"] = real.confident_share
            self.metrics["class_share_min"] = min(verdict.class_shares)
            self.protocols["sample_confident_share"] = (
                f"{len(samples)} samples; a convolutional network trained on the real training images is > 0.8 sure"
            )
        if self.model.channels == 3:
            self._frechet(samples, train, test)

    def _frechet(self, samples: Tensor, train: Tensor, test: Tensor) -> None:
        from mage.nn.backbones import PooledFeatures, efflite0

        try:
            features = PooledFeatures(efflite0())
        except ValueError:  # the extra is not installed: the report has no Frechet distance
            return

        def statistics(pictures: Tensor) -> FeatureStatistics:
            return image_statistics(pictures.split(500), features)

        reference = statistics(test)
        count = len(samples)
        name = f"fd_efflite0_{count // 1000}k" if count % 1000 == 0 else f"fd_efflite0_{count}"
        self.metrics[name] = frechet_distance(statistics(samples), reference)
        chosen = torch.randperm(len(train), generator=rng.generator(0, "real sample"))[:count]
        self.metrics[f"{name}_real"] = frechet_distance(statistics(train[chosen]), reference)
        self.protocols[name] = (
            f"{count:,} samples against {len(test):,} test images, EfficientNet-Lite0 pooled features at 64 px; "
            "'real' is as many training images"
        )

    def features(self) -> None:
        """Linear probe and k-NN on features, and logistic regression on pixels."""
        if self._train.labels is None:
            return
        describe = functools.partial(self.model.features, pool="both")
        train, test = (self._extract(describe, part) for part in (self._train, self._test))
        means = [Features(part.features[:, : part.features.shape[1] // 2], part.labels) for part in (train, test)]
        self.metrics["linear_probe_mean_accuracy"] = lbfgs_probe(*means).accuracy
        self.metrics["linear_probe_accuracy"] = lbfgs_probe(train, test).accuracy
        self.protocols["linear_probe_accuracy"] = (
            f"logistic regression on features of {len(train.labels):,} fixed centre crops, {len(test.labels):,} test "
            "images; mean of the tokens and class token side by side; linear_probe_mean_accuracy: the mean alone"
        )
        self.metrics["linear_probe_lars_accuracy"] = lars_probe(train, test, config=LarsConfig()).accuracy
        self.metrics["knn_accuracy"] = knn(train, test).accuracy
        if train.labels.numel() <= 10_000:
            pixels = [self._extract(lambda batch: batch, part) for part in (self._train, self._test)]
            self.metrics["raw_pixel_accuracy"] = raw_pixel_accuracy(pixels[0], pixels[1])

    def _extract(self, function: object, dataset: ImageDataset) -> Features:
        return extract_features(function, dataset, self._transform)  # type: ignore[arg-type]

    def _figure(self, name: str, picture: Tensor) -> None:
        images.save_png(self.folder / "figures" / f"{name}.png", picture)


def _random_subset(dataset: ImageDataset, count: int) -> ImageDataset:
    order = torch.randperm(len(dataset), generator=rng.generator(0, "validation")).tolist()
    return subset(dataset, order[:count])
