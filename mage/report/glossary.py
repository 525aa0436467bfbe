"""Titles, explanations and number formats of all metrics in reports."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mage.evaluation import generation, metric, samples, suite, tokenizer  # noqa: F401  # their metrics register
from mage.evaluation.classification import FINE_TUNING
from mage.evaluation.generation_metrics import GENERATION_METRICS
from mage.evaluation.linear_probe import RawPixels
from mage.evaluation.masked_loss import MaskedLoss
from mage.evaluation.metric import Description
from mage.evaluation.representation import REPRESENTATION_PROTOCOLS
from mage.evaluation.sample_metrics import SAMPLE_METRICS
from mage.evaluation.tokenizer_metrics import TOKENIZER_METRICS
from mage.registry import Registry

MISSING = "n/a"
SPACE = "\N{NO-BREAK SPACE}"
"""Between a number and its unit."""


OTHERS = {
    "pretrain_valid_loss": Description(
        "Validation loss",
        "Cross-entropy of MAGE's guesses at masked tokens of images that training did not see.",
        "number",
        "lower",
    ),
    "class_accuracy": Description(
        "Samples of their class",
        "Share of images generated for a class, each class in turn, that a classifier trained on real images takes "
        "for it.",
        "share",
        "higher",
    ),
    "class_confident_share": Description(
        "Samples of a class a judge is sure of",
        "Share of images generated for a class, each class in turn, of which a classifier trained on real images is "
        "more than 80 % sure.",
        "share",
        "higher",
    ),
    "control_psnr_db": Description(
        "Control: PSNR", "Of 64 digits, whatever the model was trained on: tells the weights apart.", "decibel"
    ),
    "control_surprise": Description(
        "Control: surprise", "Of the same digits, in nats per token: tells the weights apart.", "number"
    ),
}
"""Metrics of training runs and of packaged models, which no evaluator computes."""

HEADLINES = (
    "sample_confident_share",
    "linear_probe_accuracy",
    "knn_accuracy",
    "psnr_db",
    "codes_used",
    "near_copy_share",
)
"""Metrics on the cards at the top of a page, if a run has them; distances of generated images follow."""

CURVES = {
    "loss": "Loss",
    "lr": "Learning rate",
    "grad_norm": "Gradient norm",
    "images_per_second": "Images per second",
    "psnr_db": "PSNR on validation images (dB)",
    "codes_used": "Share of codes in use",
    "codebook_perplexity": "Codebook perplexity",
    "squared_error": "Mean squared error of pixels",
    "absolute_error": "Mean absolute error of pixels",
    "perceptual": "Perceptual distance",
    "quantizer_loss": "Quantizer loss",
    "adversarial": "Adversarial loss of the tokenizer",
    "adversarial_weight": "Weight of the adversarial loss",
    "discriminator/right": "Share of right verdicts of the discriminator",
    "discriminator/largest": "Largest score of the discriminator",
    "online/knn": "Online k-NN accuracy",
    "online/linear": "Online linear probe accuracy",
    "valid/accuracy": "Accuracy on validation images",
    "train/accuracy": "Accuracy on training batches, mixed",
    "view_agreement": "Share of images whose nearest other view is their own",
    "contrastive": "Contrastive loss",
    "reconstruction": "Reconstruction loss",
}


def describe(name: str) -> Description:
    """The description of a metric by its evaluator; an unknown metric has its name as title."""
    for descriptions in _all_descriptions():
        if (description := metric.describe(name, descriptions)) is not None:
            return description
    return Description(name)


def accuracy_bars(names: Iterable[object]) -> list[str]:
    """Names of the metrics in the chart of accuracies: of frozen features and of fine-tuning."""
    return [name for name in map(str, names) if describe(name).bar]


def is_distance(name: str) -> bool:
    """Whether a metric is a distance between generated and real images."""
    kinds = (GENERATION_METRICS.get(kind).descriptions() for kind in GENERATION_METRICS)
    return describe(name).better == "lower" and any(metric.describe(name, kind) is not None for kind in kinds)


def _all_descriptions() -> Iterator[Mapping[str, Description]]:
    registries: tuple[Registry[Any], ...] = (
        REPRESENTATION_PROTOCOLS, SAMPLE_METRICS, TOKENIZER_METRICS, GENERATION_METRICS,
    )  # fmt: skip
    for registry in registries:
        yield from (registry.get(name).descriptions() for name in registry)
    yield from (RawPixels.metrics, MaskedLoss.metrics, FINE_TUNING, OTHERS)


def format_value(name: str, value: object) -> str:
    """A metric's value with its unit; "n/a" for anything but a finite number."""
    number = finite(value)
    if number is None:
        return MISSING
    form = describe(name).form
    if form == "share":
        return f"{100 * number:.1f}{SPACE}%"
    if form == "decibel":
        return f"{number:.1f}{SPACE}dB"
    return format_number(number)


def format_number(value: float) -> str:
    """Four significant digits with thousands separators, without trailing zeros."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.3g}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_seconds(seconds: float) -> str:
    """A duration, such as "7 min 12 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def curve_title(name: str) -> str:
    """The title of a curve of a training log; `tokenizer/lr` and the like name their network."""
    network, _, rest = name.partition("/")
    if name not in CURVES and rest in CURVES:
        return f"{CURVES[rest]} of the {network}"
    return CURVES.get(name, name)


def mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The entry `name` of what was read from a file; empty if it is missing, or no mapping of names to values."""
    part = values.get(name)
    return part if isinstance(part, Mapping) else {}


def finite(value: object) -> float | None:
    """A number as float; None for NaN, infinities, booleans and other types."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None
