"""What every measured number is called in a report, how it is written, and what it says to a newcomer."""

import math
import re
from dataclasses import replace

from mage.evaluation.generation_metrics import GENERATION_METRICS
from mage.evaluation.metric import Description

MISSING = "n/a"
SPACE = "\N{NO-BREAK SPACE}"
"""Between a number and its unit."""


GLOSSARY = {
    "sample_confident_share": Description(
        "Recognisable samples",
        "Share of generated images of which a classifier trained on real images is more than 80 % sure.",
        "share",
        "higher",
    ),
    "real_confident_share": Description(
        "Recognisable real images",
        "The same share for real test images: what generated images could reach at best.",
        "share",
    ),
    "class_share_min": Description(
        "Rarest class",
        "Share of generated images that fall into the least frequent class: near 0 means that a class was forgotten.",
        "share",
        "higher",
    ),
    "near_copy_share": Description(
        "Near copies",
        "Share of generated images that are closer to a training image than the closest 1 % of real test images are.",
        "share",
        "lower",
    ),
    "linear_probe_accuracy": Description(
        "Linear probe",
        "Test accuracy of a linear classifier on frozen features: how much of the class the features show.",
        "share",
        "higher",
    ),
    "linear_probe_mean_accuracy": Description(
        "Linear probe, mean",
        "The same on the mean of the tokens' features.",
        "share",
        "higher",
    ),
    "linear_probe_lars_accuracy": Description(
        "Linear probe (LARS)",
        "The same, trained by the paper's recipe: LARS after a batch normalisation without parameters.",
        "share",
        "higher",
    ),
    "knn_accuracy": Description(
        "k-NN",
        "Test accuracy of a vote among the nearest training images in feature space: nothing is trained.",
        "share",
        "higher",
    ),
    "finetune_accuracy": Description(
        "Fine-tuning", "Test accuracy after encoder and head have learned the labels together.", "share", "higher"
    ),
    "attentive_probe_accuracy": Description(
        "Attentive probe",
        "Test accuracy of a classifier that may choose at which tokens of the frozen encoder it looks.",
        "share",
        "higher",
    ),
    "corruption_accuracy": Description(
        "Corrupted images",
        "Mean accuracy on test images under noise, blur, weather and digital damage, over kinds and severities.",
        "share",
        "higher",
    ),
    "corruption_clean_accuracy": Description(
        "The same images, clean", "Accuracy on the images that were corrupted, before they were.", "share"
    ),
    "attack_clean_accuracy": Description(
        "Not attacked", "Accuracy on the images that were attacked, before they were.", "share"
    ),
    "mean_corruption_error": Description(
        "Mean corruption error", "Errors on corrupted images over those of the baseline; 1 is as bad.", better="lower"
    ),
    "linear_probe_top5_accuracy": Description(
        "Linear probe, top 5", "Share of test images whose class is among the five best.", "share", "higher"
    ),
    "raw_pixel_accuracy": Description(
        "Raw pixels",
        "Test accuracy of a linear classifier on the pixels themselves: what features must beat to be of use.",
        "share",
    ),
    "psnr_db": Description(
        "Tokenizer PSNR",
        "How close an image comes back after being turned into tokens and decoded; 6 dB more is half the error.",
        "decibel",
        "higher",
    ),
    "codes_used": Description(
        "Codes in use",
        "Share of the codebook's entries that occur at all in the tokens of test images.",
        "share",
        "higher",
    ),
    "codebook_perplexity": Description(
        "Codebook perplexity",
        "The number of equally frequent codes that would carry as much information as the codes do.",
        "number",
        "higher",
    ),
    "pretrain_valid_loss": Description(
        "Validation loss",
        "Cross-entropy of MAGE's guesses at masked tokens of images that training did not see.",
        "number",
        "lower",
    ),
}

HEADLINES = (
    "sample_confident_share",
    "linear_probe_accuracy",
    "knn_accuracy",
    "psnr_db",
    "codes_used",
    "near_copy_share",
)
"""The numbers on cards at the top of a page, as far as a run has them; Frechet distances follow."""

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
    "online/knn": "Online k-NN accuracy",
    "online/linear": "Online linear probe accuracy",
    "valid/accuracy": "Accuracy on validation images",
    "train/accuracy": "Accuracy on training batches, mixed",
    "view_agreement": "Share of images whose nearest other view is their own",
    "contrastive": "Contrastive loss",
    "reconstruction": "Reconstruction loss",
}


def describe(name: str) -> Description:
    """The glossary's entry of a metric; an unknown one is called by its name."""
    if name in GLOSSARY:
        return GLOSSARY[name]
    few = re.fullmatch(r"fewshot(\d+)_accuracy", name)
    if few is not None:
        explanation = f"Mean test accuracy of linear classifiers that saw {few[1]} labelled images of each class."
        return Description(f"{few[1]} per class", explanation, "share", "higher")
    attack = re.fullmatch(r"(fgsm|pgd)_(linf|l2)_([\d.]+)_accuracy", name)
    if attack is not None:
        budget = f"no number changes by more than {attack[3]}/255" if attack[2] == "linf" else f"norm {attack[3]}"
        norm = {"linf": "l\N{INFINITY}", "l2": "l2"}[attack[2]]
        explanation = f"Accuracy on images changed so as to mislead the classifier; {budget}."
        return Description(f"{attack[1].upper()} {norm} {attack[3]}", explanation, "share", "higher")
    return _of_generation(name) or Description(name)


def _of_generation(name: str) -> Description | None:
    """Of a metric of generated images, such as fd_efflite0_test10k or recall_timm-resnet50_val500_real."""
    parts = re.fullmatch(r"([^_]+)_([^_]+)_(\w+?)(_real)?", name)
    if parts is None:
        return None
    word, extractor, samples, real = parts.groups()
    known = {word: about for kind in GENERATION_METRICS for word, about in GENERATION_METRICS.get(kind).words.items()}
    if word not in known:
        return None
    about = known[word]
    if real:
        explanation = f"The same for real images, {samples}: what is left when nothing is generated."
        return replace(about, title=f"{about.title}, real images", explanation=explanation, better="")
    network = {"efflite0": "EfficientNet-Lite0", "inception": "Inception"}.get(extractor, extractor)
    return replace(about, explanation=about.explanation.format(network=network, samples=samples))


def is_distance(name: str) -> bool:
    """Whether a metric is a distance of generated from real images."""
    return name not in GLOSSARY and describe(name).better == "lower"


def format_value(name: str, value: object) -> str:
    """A metric's value with its unit; what is not a finite number is "n/a"."""
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
    """Four significant digits, thousands apart, without trailing zeros."""
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


def finite(value: object) -> float | None:
    """A number as float; None for NaN, infinities, truth values and everything that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None
