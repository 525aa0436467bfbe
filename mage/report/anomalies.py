"""The page of `mage anomalies`: the most and the least surprising images of a folder, with heat maps over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mage import atomic, images
from mage.report.charts import Series, line_chart
from mage.report.contents import Picture
from mage.report.glossary import format_number
from mage.report.page import page_frame
from mage.report.sections import Section, figure

SIDE = 224
"""Least number of pixels of the longer side of a picture."""
HEAT = (1.0, 0.35, 0.1)
"""Red, green and blue of the largest heat."""
MOST_OPAQUE = 0.8
"""Share of the heat's colour where it is largest."""


@dataclass(frozen=True)
class Shown:
    """One image of the page."""

    name: str
    rank: int
    """From 1, the most surprising."""
    score: float
    image: Float[Tensor, "c H W"]
    heat: Float[Tensor, "h w"]
    """One number per token."""


@dataclass(frozen=True)
class AnomalyPage:
    """Everything that the page tells."""

    folder: str
    model: str
    method: str
    """How an image is scored, as a sentence."""
    unit: str
    """Of the numbers of the heat maps."""
    scores: Sequence[float]
    """Of all images, the highest first."""
    highest: Sequence[Shown]
    lowest: Sequence[Shown]
    skipped: Sequence[str]
    """Files that could not be read."""


def write_anomalies(page: AnomalyPage, path: Path) -> Path:
    """Write the page as one HTML file, atomically."""
    atomic.write_text(path, build_anomalies(page))
    return path


def build_anomalies(page: AnomalyPage) -> str:
    """The HTML text of the page."""
    low, high = heat_range([shown.heat for shown in (*page.highest, *page.lowest)])
    ramp = f"rgb({', '.join(str(round(255 * part)) for part in HEAT)})"
    legend = (
        f'<p class="after ramp"><span>{format_number(low)}</span><span class="bar" style="background: '
        f'linear-gradient(to right, transparent, {ramp})"></span><span>{format_number(high)} {escape(page.unit)}</span>'
        "</p>"
    )
    chart = line_chart(
        [Series("score", [(float(rank), score) for rank, score in enumerate(page.scores, 1)])],
        title="Scores of all images, the highest first",
        x_label="rank",
    )
    lead = "Left, the image as the model sees it; right, where it surprises the model. All maps have one scale."
    sections = [
        Section("highest", "Highest scores", lead, _cases(page.highest, low, high) + (legend if page.highest else "")),
        Section("lowest", "Lowest scores", "Images that the model expects, on the same scale.",
                _cases(page.lowest, low, high)),
        Section("scores", "All scores", escape(page.method), f'<div class="chart wide">{chart}</div>' if chart else ""),
    ]  # fmt: skip
    facts = (f"{len(page.scores):,} images of {page.folder}", f"model {page.model}")
    heading = (
        f'<p class="eyebrow">MAGE anomalies</p><h1>{escape(Path(page.folder).name or page.folder)}</h1>'
        f'<p class="byline">{"".join(f"<span>{escape(fact)}</span>" for fact in facts)}</p>'
    )
    problems = [f"{file} cannot be read as an image" for file in page.skipped]
    return page_frame("anomalies", heading, [section for section in sections if section.body], problems)


def heat_range(heats: Sequence[Float[Tensor, "h w"]]) -> tuple[float, float]:
    """Lowest and highest number that colours tell apart: the median and the largest of all maps; 0 without any."""
    if not heats:
        return 0.0, 0.0
    values = torch.cat([heat.flatten().float() for heat in heats])
    return float(values.median()), float(values.max())


def with_heat(
    image: Float[Tensor, "c H W"], heat: Float[Tensor, "h w"], low: float, high: float
) -> Float[Tensor, "3 bh bw"]:
    """The image in grey, enlarged, under a colour that is the denser the larger the heat; at `low` it is clear."""
    grey = images.enlarge(images.with_channels(_shown(image), 3).mean(dim=0, keepdim=True), SIDE).expand(3, -1, -1)
    share = ((heat.float() - low) / max(high - low, 1e-12)).clamp(0, 1)
    cells = functional.interpolate(share[None, None], size=grey.shape[1:], mode="nearest-exact")[0]
    density = MOST_OPAQUE * cells
    return grey * (1 - density) + grey.new_tensor(HEAT)[:, None, None] * density


def _shown(image: Float[Tensor, "c H W"]) -> Float[Tensor, "d H W"]:
    """The image, or, unless it is grey or colour, its first channel."""
    return image if image.shape[0] in images.PIL_MODES else image[:1]


def _cases(shown: Sequence[Shown], low: float, high: float) -> str:
    figures = []
    for case in shown:
        plain = images.with_channels(images.enlarge(_shown(case.image), SIDE), 3)
        gap = plain.new_ones(3, plain.shape[1], max(2, plain.shape[2] // 28))
        pair = torch.cat([plain, gap, with_heat(case.image, case.heat, low, high)], dim=2)
        picture = Picture(images.png_bytes(pair), pair.shape[2], pair.shape[1])
        caption = f"{case.rank:,}. {case.name}, score {format_number(case.score)}"
        figures.append(figure(picture, caption, extra="thumb"))
    return f'<div class="strip cases">{"".join(figures)}</div>' if figures else ""
