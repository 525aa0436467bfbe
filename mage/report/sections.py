"""The sections of a report in their order; a section without content has an empty body."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from mage.report.charts import Bar, Series, bar_chart, frequency_chart, line_chart
from mage.report.classes import classes_of_classifiers
from mage.report.contents import Contents, Picture
from mage.report.curves import measured_curves
from mage.report.glossary import (
    accuracy_bars,
    curve_title,
    describe,
    finite,
    format_number,
    format_seconds,
    format_value,
)
from mage.store import packaged

SMALL = 900
"""Pictures with at most this many pixels per side are enlarged without smoothing, so that pixels stay visible."""
PROGRESS = ("linear_probe_mean_accuracy", "sample_confident_share", "knn_accuracy")
"""Metrics of a demo that are drawn against its minutes."""
NOT_PARTS = ("total", "this_session")
"""Timings that are sums of other timings."""


@dataclass(frozen=True)
class Section:
    """A heading, an introduction, and the content as HTML."""

    anchor: str
    title: str
    lead: str
    body: str
    metrics: tuple[str, ...] = ()
    """Names of metrics next to the heading."""


def all_sections(contents: Contents) -> list[Section]:
    """The sections for which the run has content."""
    sections = [
        _samples(contents),
        _pictures(
            contents,
            "classes",
            "Classes",
            "Samples by class. Clusters are classes without labels: k-means groups of the model's own features.",
            {
                "classes": "Samples, a class in each row.",
                "clusters": "Training images of the largest clusters, one cluster in each row.",
            },
        ),
        _pictures(
            contents,
            "reconstructions",
            "Reconstructions",
            "Real images of which a growing share of tokens is masked and predicted by the model. With few masked "
            "tokens it restores the image; with nearly all tokens masked it generates one that fits the rest.",
            {
                "reconstruct": "Each column is one image, each row one share of masked tokens.",
                "tokenizer": "Originals and reconstructions of the tokenizer alone, the limit of the model.",
                "side_by_side": "Test images of `mage evaluate tokenizer`: originals, reconstructions, and errors.",
            },
            ("psnr_db",),
        ),
        _pictures(
            contents,
            "edits",
            "Edits",
            "One call, three masks: the grey part is generated to fit the rest. Inpainting fills a hole, outpainting "
            "continues an image, uncropping generates its surroundings.",
            {"edit": "Given and result in turn; the grey part is drawn anew. Known pixels keep their tokens."},
        ),
        _pictures(
            contents,
            "neighbours",
            "Neighbours",
            "What the features hold: images, and those of the others whose features have the most similar direction.",
            {"neighbours": "The first row are the images, below them their neighbours, the nearest first."},
        ),
        _minutes(contents),
        _curves(contents),
        _codebook(contents),
        _representations(contents),
        _pictures(
            contents,
            "nearest",
            "Nearest images",
            "The generated images that are closest to a training image, with that image: copies would show here.",
            {"nearest": "Above, generated images; below, the training image with the smallest distance in pixels."},
            ("near_copy_share", "near_copy_share_restored"),
        ),
        _timings(contents),
    ]
    return [section for section in sections if section.body]


def figure(picture: Picture, caption: str, *, extra: str = "") -> str:
    """An embedded picture with its caption; small ones are enlarged by an integer factor, so that pixels stay equal."""
    small = max(picture.width, picture.height) <= SMALL
    factor = max(1, min(8, 560 // picture.width)) if small and not extra else 1
    kind = f"{extra} pixelated".strip() if small else extra
    return (
        f'<figure class="{kind}"><div class="paper"><img src="{picture.uri}" width="{picture.width * factor}" '
        f'height="{picture.height * factor}" alt="{escape(caption, quote=True)}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _figures(contents: Contents, name: str, caption: str) -> list[str]:
    """The run's figure of this name; in a demo beside that of the packaged model."""
    own = figure(contents.figures[name], caption) if name in contents.figures else ""
    if contents.packaged is None or name not in contents.packaged.figures:
        return [own] if own else []
    other = figure(contents.packaged.figures[name], caption)
    halves = (("The packaged model", other), ("Trained in this run", own))
    return [
        '<div class="halves">'
        + "".join(f"<div><h3>{title}</h3>{half}</div>" for title, half in halves if half)
        + "</div>"
    ]


def _samples(contents: Contents) -> Section:
    parts = _figures(contents, "samples", "In the order of generation; none was selected.")
    strip = "".join(figure(picture, f"step {step:,}", extra="thumb") for step, picture in contents.progress)
    if strip:
        parts.append(f'<div><h3>In the course of training</h3><div class="strip">{strip}</div></div>')
    beside = len(parts) == 2 and contents.packaged is None
    body = f'<div class="pair">{parts[0]}{parts[1]}</div>' if beside else "".join(parts)
    if _is_tokenizer(contents):
        lead = "Validation images, each above its reconstruction, at some steps of training."
        return Section("progress", "In the course of training", lead, strip and f'<div class="strip">{strip}</div>')
    lead = (
        "Every image starts as a grid of masked tokens; in each step the model fills in those it is most confident of."
    )
    names = ("sample_confident_share", "real_confident_share", "class_share_min", "class_share_min_real")
    return Section("samples", "Samples", lead, body, names)


def _pictures(
    contents: Contents, anchor: str, title: str, lead: str, captions: dict[str, str], metrics: tuple[str, ...] = ()
) -> Section:
    figures = [part for name, text in captions.items() for part in _figures(contents, name, text)]
    return Section(anchor, title, lead, "".join(figures), metrics)


def _minutes(contents: Contents) -> Section:
    """What a demo of more minutes reaches, by the package's record; only beside a packaged model."""
    record = packaged.minutes_record() if contents.packaged is not None else {}
    lines: dict[str, list[tuple[float, float | None]]] = {}
    for name, value in record.get("metrics", {}).items():
        number, _, metric = name.partition(".")
        if metric in PROGRESS and number.startswith("minutes"):
            lines.setdefault(metric, []).append((float(number.removeprefix("minutes")), finite(value)))
    series = [Series(describe(metric).title, sorted(points), True) for metric, points in lines.items()]
    chart = line_chart(series, title="Share of 1", x_label="minutes of the demo")
    lead = (
        f"The same demo with more minutes, measured on {escape(str(record.get('machine', '')))}: other machines need "
        "fewer or more."
    )
    return Section("minutes", "More minutes", lead, f'<div class="chart wide">{chart}</div>' if chart else "")


def _curves(contents: Contents) -> Section:
    parts = [("Transformer", contents.log), ("Tokenizer", contents.tokenizer_log)]
    if _is_tokenizer(contents):
        parts = [("Tokenizer", contents.log)]
    body = "".join(_curves_of(name, log) for name, log in parts)
    lead = "The loss on training batches, averaged over the steps since the last point, and on validation images."
    return Section("training", "Training curves", lead, body)


def _is_tokenizer(contents: Contents) -> bool:
    """Whether the run folder is that of a tokenizer."""
    return "psnr_db" in {name for line in contents.log for name in line} and not contents.tokenizer_log


def _curves_of(title: str, log: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for line in log for name in line if name not in ("step", "seconds")))

    def series(name: str, shown: str, *, markers: bool = False) -> Series:
        return Series(shown, [(line["step"], finite(line[name])) for line in log if name in line], markers)

    loss = "tokenizer/loss" if "tokenizer/loss" in names else "loss"  # with a discriminator it has a longer name
    losses = [series(loss, "training")] if loss in names else []
    losses += [series("valid/loss", "validation", markers=True)] if "valid/loss" in names else []
    main = line_chart(losses, title=f"{title}: loss")
    order = sorted((name for name in names if name not in (loss, "valid/loss")), key=_curve_order)
    small = [
        line_chart([series(name, curve_title(name), markers=_is_rare(name, log))], title=curve_title(name),
                   width=340, height=200)
        for name in order
    ]  # fmt: skip
    grid = "".join(f'<div class="chart">{chart}</div>' for chart in small if chart)
    if not main and not grid:
        return ""
    first = f'<div class="chart wide">{main}</div>' if main else ""
    return f'<h3>{escape(title)}</h3>{first}<div class="multiples">{grid}</div>'


def _curve_order(name: str) -> tuple[int, str]:
    technical = ("lr", "grad_norm", "images_per_second")
    last = name.split("/")[-1]
    return (1 + technical.index(last) if last in technical else 0, name)


def _is_rare(name: str, log: list[dict[str, Any]]) -> bool:
    return sum(name in line for line in log) <= 20


def _codebook(contents: Contents) -> Section:
    counts = contents.counts
    chart = frequency_chart(
        counts, title="Frequency of the codes", x_label="code, most frequent first", y_label="% of all tokens"
    )
    caption = ""
    if chart:
        total = sum(counts)
        entropy = -sum(count / total * math.log(count / total) for count in counts if count)
        used = sum(count > 0 for count in counts)
        caption = (
            f'<p class="after">{used:,} of {len(counts):,} codes occur among {total:,} tokens. Perplexity '
            f"{format_number(math.exp(entropy))}: as varied as that many equally frequent codes.</p>"
        )
    lead = "An image is encoded in learned codes. If few of them dominate, tokens carry little information."
    body = f'<div class="chart wide">{chart}</div>{caption}' if chart else ""
    return Section("codebook", "Codebook usage", lead, body, ("codes_used",))


def _representations(contents: Contents) -> Section:
    metrics, bars = contents.part("metrics"), []
    for name in accuracy_bars(metrics):
        value = finite(metrics.get(name))
        if value is not None:
            text = format_value(name, value) + interval_text(contents.intervals, name)
            bars.append(Bar(describe(name).title, value, text, muted=name == "raw_pixel_accuracy"))
    chart = bar_chart(bars, title="Accuracy on test images", most=1.0)
    body = f'<div class="chart wide">{chart}</div>' if chart else ""
    if contents.representations:
        body += classes_of_classifiers(contents.representations)
        body += measured_curves({contents.name: contents.representations})
    lead = (
        "Accuracy of simple classifiers on the frozen features of the same network; in brackets the 95 % interval, for "
        "as many test images as there are."
    )
    return Section("representations", "Representations", lead, body)


def interval_text(intervals: Mapping[str, tuple[float, float]], name: str) -> str:
    """The 95 % interval of a share, such as " (83.0 to 91.2)"; "" if it has none."""
    if name not in intervals:
        return ""
    low, high = intervals[name]
    return f" ({100 * low:.1f} to {100 * high:.1f})"


def _timings(contents: Contents) -> Section:
    seconds = {str(name): finite(value) for name, value in contents.part("timings").items()}
    parts = {name: value for name, value in seconds.items() if value is not None and name not in NOT_PARTS}
    bars = [Bar(name.replace("_", " "), value, format_seconds(value)) for name, value in parts.items()]
    chart = bar_chart(bars, title="Time per part")
    total = seconds.get("total") or sum(parts.values())
    machine = str(contents.results.get("machine", "")).strip()
    where = f" on {escape(machine)}" if machine else ""
    body = f'<div class="chart wide">{chart}</div>' if chart else ""
    return Section("timings", "Timings", f"{format_seconds(total)} in all{where}.", body)
