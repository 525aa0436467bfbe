"""Everything that is measured of a representation, in one go: probes, few-shot, corruptions, attacks.

Features of the training and test images are computed once and shared by all probes. Corruptions and attacks judge a
classifier: the model itself if it was fine-tuned, else a logistic regression on its frozen features.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from mage import images
from mage.data.datasets import ImageDataset, subset
from mage.data.loaders import evaluation_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.evaluation.attacks import AttackConfig, attack_accuracy, fgsm
from mage.evaluation.attentive_probe import TokenFeatures, attentive_probe
from mage.evaluation.classification import Scorer
from mage.evaluation.corruptions import KINDS, SEVERITIES, ours
from mage.evaluation.differentiable import differentiable_scorer, latent_of
from mage.evaluation.features import Features, check_pair, extract_features
from mage.evaluation.fewshot import COUNTS, DRAWS, few_shot
from mage.evaluation.knn import knn
from mage.evaluation.linear_head import LinearHead, fit_head
from mage.evaluation.linear_probe import linear_probe, measure_head
from mage.evaluation.robustness import corruption_accuracy
from mage.models import Classifier
from mage.models.mage import Pool
from mage.pipeline import Mage

PARTS = ("linear", "knn", "fewshot", "attentive", "corruptions", "attacks")
OnPart = Callable[[str], None]


@dataclass(frozen=True)
class SuiteConfig:
    """What is measured, and on how much."""

    parts: tuple[str, ...] = PARTS
    """What to measure."""
    pool: Pool = "mean"
    """Features: mean of the tokens, class token, or both."""
    protocol: str = "lbfgs"
    """How the linear probe is found, as in `mage probe`."""
    counts: tuple[int, ...] = COUNTS
    """Few-shot: labelled images per class; those that the smallest class does not have are left out."""
    draws: int = DRAWS
    """Few-shot: random choices of these images."""
    token_images: int = 10_000
    """Attentive probe: training images, at most, whose tokens are kept in memory."""
    kinds: tuple[str, ...] = tuple(KINDS)
    """Corruptions."""
    severities: tuple[int, ...] = SEVERITIES
    """Severities of the corruptions."""
    corruption_images: int = 1000
    """Test images, at most, that are corrupted."""
    attack_images: int = 500
    """Test images, at most, that are attacked."""
    attack_steps: int = 10
    """Steps of PGD."""
    linf_budgets: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """Largest change of a pixel, in 255ths."""
    l2_budgets: tuple[float, ...] = (0.1, 0.25, 0.5)
    """Largest Euclidean norm of the change, images in [0, 1]."""
    batch_size: int = 256
    """Images at a time."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts:
            raise ValueError(f"there is no part {', '.join(unknown) or 'at all'}; parts are {', '.join(PARTS)}")


@dataclass
class SuiteResult:
    """Accuracies from 0 to 1, how they were measured, and the curves behind them."""

    metrics: dict[str, float] = field(default_factory=dict)
    protocol: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    few_shot: list[dict[str, Any]] = field(default_factory=list)
    corruption_accuracy: dict[str, dict[int, float]] = field(default_factory=dict)
    corruption_accuracy_per_kind: dict[str, float] = field(default_factory=dict)
    attacks: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    def note(self, name: str, value: float, protocol: str) -> None:
        """A number with its protocol."""
        self.metrics[name], self.protocol[name] = value, protocol


def measure_representation(
    model: Mage,
    train: ImageDataset,
    test: ImageDataset,
    config: SuiteConfig | None = None,
    *,
    on_part: OnPart | None = None,
) -> SuiteResult:
    """Run the chosen parts. Raises ValueError for data without labels or a model without features."""
    config, result = config or SuiteConfig(), SuiteResult()

    @contextmanager
    def part(name: str) -> Iterator[None]:
        if on_part is not None:
            on_part(name)
        start = time.perf_counter()
        yield
        result.timings[name] = time.perf_counter() - start

    with part("features"):
        features, queries = (
            extract_features(
                lambda pixels: model.features(pixels, config.pool),
                dataset,
                TransformConfig(size=model.image_size),
                batch_size=config.batch_size,
            )
            for dataset in (train, test)
        )
    check_pair(features, queries)
    solved = functools.cache(lambda: fit_head(features, seed=config.seed))
    if "linear" in config.parts:
        with part("linear"):
            if config.protocol == "lbfgs":  # the head is what corruptions and attacks need, too
                found = measure_head(solved(), queries, "lbfgs")
            else:
                found = linear_probe(features, queries, protocol=config.protocol, seed=config.seed)
            result.note("linear_probe_accuracy", found.accuracy, f"{found.protocol} {config.pool} fixed centre crops")
            result.note("linear_probe_top5_accuracy", found.top5, f"{found.protocol} {config.pool} fixed centre crops")
    if "knn" in config.parts:
        with part("knn"):
            votes = knn(features, queries, seed=config.seed)
            how = f"k = {votes.k} chosen on training images, weighted cosine, temperature {votes.temperature:g}"
            result.note("knn_accuracy", votes.accuracy, how)
    if "fewshot" in config.parts:
        with part("fewshot"):
            _few_shot(features, queries, config, result)
    if "attentive" in config.parts:
        with part("attentive"):
            chosen = subset(train, _evenly(len(train), config.token_images))
            tokens = [_tokens(model, dataset, config) for dataset in (chosen, test)]
            attended = attentive_probe(*tokens, seed=config.seed)
            how = f"{attended.protocol}, {len(tokens[0].labels):,} training images"
            result.note("attentive_probe_accuracy", attended.accuracy, how)
    if "corruptions" in config.parts or "attacks" in config.parts:
        with part("head"):
            head = None if isinstance(model.transformer, Classifier) else solved().head
        judge = "fine-tuned classifier" if head is None else f"logistic regression on frozen {config.pool} features"
        if "corruptions" in config.parts:
            with part("corruptions"):
                _corruptions(model, head, test, judge, config, result)
        if "attacks" in config.parts:
            with part("attacks"):
                _attacks(model, head, test, judge, config, result)
    return result


def _few_shot(train: Features, test: Features, config: SuiteConfig, result: SuiteResult) -> None:
    smallest = int(torch.bincount(train.labels)[train.labels.unique()].min())
    counts = [count for count in config.counts if count <= smallest]
    for found in few_shot(train, test, counts=counts, draws=config.draws, seed=config.seed) if counts else ():
        how = f"lbfgs {config.pool}, {config.draws} draws, ± {100 * found.interval:.2f} (95 %)"
        result.note(f"fewshot{found.per_class}_accuracy", found.mean, how)
        result.few_shot.append(asdict(found))


def _tokens(model: Mage, dataset: ImageDataset, config: SuiteConfig) -> TokenFeatures:
    rows, labels = [], []
    transform = build_transform(TransformConfig(size=model.image_size))
    for batch in evaluation_batches(dataset, transform, batch_size=config.batch_size):
        found = model.forward_intermediates(images.to_float(batch["images"]), 1, output_fmt="NLC")[0]
        rows.append(found.to("cpu", torch.float16))
        labels.append(batch["labels"])
    return TokenFeatures(torch.cat(rows), torch.cat(labels))


def _corruptions(
    model: Mage, head: LinearHead | None, test: ImageDataset, judge: str, config: SuiteConfig, result: SuiteResult
) -> None:
    chosen = subset(test, _evenly(len(test), config.corruption_images))
    found = corruption_accuracy(
        plain_scorer(model, head, config.pool),
        chosen,
        TransformConfig(size=model.image_size),
        kinds=config.kinds,
        severities=config.severities,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    how = f"{judge}; {len(config.kinds)} kinds x {len(config.severities)} severities on {len(chosen):,} test images"
    made = ours(config.kinds)
    result.note("corruption_accuracy", found.mean, f"{how}; {made}" if made else how)
    result.note("corruption_clean_accuracy", found.clean, f"{judge}; the same images, not corrupted")
    result.corruption_accuracy, result.corruption_accuracy_per_kind = found.accuracy, found.per_kind


def _attacks(
    model: Mage, head: LinearHead | None, test: ImageDataset, judge: str, config: SuiteConfig, result: SuiteResult
) -> None:
    dataset = subset(test, _evenly(len(test), config.attack_images))
    batches = list(evaluation_batches(dataset, build_transform(TransformConfig(size=model.image_size))))
    pixels = images.to_float(torch.cat([batch["images"] for batch in batches])).to(model.device)
    labels = torch.cat([batch["labels"] for batch in batches])
    score, latent = differentiable_scorer(model, head, pool=config.pool), latent_of(model)
    budgets = [("linf", share / 255, f"{share:g}") for share in config.linf_budgets]
    budgets += [("l2", norm, f"{norm:g}") for norm in config.l2_budgets]
    for norm, budget, text in budgets:
        one = attack_accuracy(score, pixels, labels, fgsm(norm, budget), seed=config.seed)  # type: ignore[arg-type]
        many = AttackConfig(norm=norm, budget=budget, steps=config.attack_steps)  # type: ignore[arg-type]
        straight = attack_accuracy(score, pixels, labels, many, seed=config.seed)
        point: dict[str, Any] = {"norm": norm, "budget": budget, "clean": straight.clean, "fgsm": one.attacked}
        left = one.survivors & straight.survivors
        point["pgd_straight_through"] = straight.attacked
        if latent is not None:
            drift = attack_accuracy(score, pixels, labels, many, latent=latent, seed=config.seed)
            point["pgd_latent"], left = drift.attacked, left & drift.survivors
        point["pgd"] = float(left.double().mean())
        result.attacks.append(point)
        unit = "/255" if norm == "linf" else ""
        how = f"{judge}; {norm} {text}{unit}, {len(labels):,} test images"
        result.note(f"fgsm_{norm}_{text}_accuracy", one.attacked, how)
        kinds = "through the classifier and on the latent" if latent is not None else "through the classifier"
        result.note(
            f"pgd_{norm}_{text}_accuracy", point["pgd"], f"{how}, {config.attack_steps} steps, {kinds}, and FGSM"
        )
    result.note("attack_clean_accuracy", straight.clean, f"{judge}; the same images, not attacked")


def plain_scorer(model: Mage, head: LinearHead | None, pool: Pool) -> Scorer:
    """Images -> class scores, without gradients: of the model, or of a head on its features."""
    if head is None:
        return model.classify
    return lambda pixels: head(model.features(pixels, pool).cpu())


def _evenly(total: int, most: int) -> list[int]:
    """Up to `most` indices, evenly spread: data sets come sorted by class."""
    count = min(total, most)
    return [index * total // count for index in range(count)]
