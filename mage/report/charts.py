"""Charts as inline SVG, without a plotting library: lines, horizontal bars, and a sorted distribution.

Colours are CSS classes (`series-0`, `grid`, ...) of the page's style sheet, for light and dark schemes. `standalone`
turns a chart into the content of an SVG file.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from mage.report.axes import Axis, factors_axis, grows_by_factors, linear_axis, log_axis
from mage.report.glossary import finite, format_number

NUM_COLOURS = 5
DASHES = ("", "8 4", "2 4")
"""Of the first five lines, the next five, and the five after these, which have the same colours."""
MOST_OF_NAMES = 0.4
"""Largest share of a bar chart's width that names of bars take."""
TITLE_LETTER = 8.5
"""Approximate width of a letter of a title, in pixels."""
MOST_POINTS = 400
"""Longer lines are thinned to the highest and lowest point of each interval."""


@dataclass(frozen=True)
class Series:
    """One line: (x, y) pairs. A y that is not finite is a gap."""

    name: str
    points: Sequence[tuple[float, float | None]]
    markers: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar, with a text at its end."""

    name: str
    value: float
    text: str
    muted: bool = False


def line_chart(
    series: Sequence[Series], *, title: str, x_label: str = "step", width: int = 1000, height: int = 320
) -> str:
    """Lines over a common x axis; "" without finite points.

    The y axis is logarithmic for positive values over a wide range, except for ranges over 1e5, such as those of a
    learning rate that falls to 0. The x axis is logarithmic, with a tick at each point, for marked points of which each
    is at least twice the previous one, such as 4, 8 and 16 steps.
    """
    lines = [Series(line.name, _thinned(line.points), line.markers) for line in series]
    lines = [line for line in lines if any(y is not None for _, y in line.points)]
    if not lines:
        return ""
    xs = [x for line in lines for x, y in line.points if y is not None]
    ys = [y for line in lines for _, y in line.points if y is not None]
    right = width - 14.0
    names = [line.name for line in lines] if len(lines) > 1 else []
    legend = _legend_rows(names, right)
    # If title and legend do not fit into one row, the legend has rows of its own.
    crowded = TITLE_LETTER * len(title) + sum(map(_legend_width, names)) > width - 30
    height += 18 * (len(legend) - 1)
    top, bottom = 38.0 + 18 * len(legend) if names and crowded else 34.0, height - 42.0
    if min(ys) > 0 and 12 < max(ys) / min(ys) < 1e5:
        y_axis = log_axis(min(ys) / 1.1, max(ys) * 1.1, bottom, top)
    else:
        y_axis = linear_axis(min(ys), max(ys), bottom, top, count=5 if height > 250 else 3)
    left = 18.0 + 7.0 * max(len(y_axis.label(tick)) for tick in y_axis.ticks)
    first = 0.0 if 0 <= min(xs) <= max(xs) / 10 else min(xs)
    if all(line.markers for line in lines) and grows_by_factors(xs):
        x_axis = factors_axis(xs, left, right)
    else:
        x_axis = linear_axis(first, max(xs), left, right, count=max(3, width // 120), tight=True)
    body = [_frame(x_axis, y_axis, x_label, width, height)]
    for index, line in enumerate(lines):
        body.append(_line(line, index, x_axis, y_axis, x_label))
    body.append(_legend(legend, right, 40 if crowded else 18))
    return _svg(width, height, title, "".join(body))


def bar_chart(bars: Sequence[Bar], *, title: str, most: float | None = None, width: int = 1000) -> str:
    """Horizontal bars from 0 to `most` (default: the largest value); "" without bars."""
    if not bars:
        return ""
    longest = most or max(bar.value for bar in bars) or 1.0
    row, top = 34, 30
    names = [_clipped(bar.name, int((MOST_OF_NAMES * width - 24) / 6.6)) for bar in bars]
    left = 24.0 + 6.6 * max(map(len, names))
    room = width - left - 30.0 - 7.4 * max(len(bar.text) for bar in bars)
    body = []
    for index, bar in enumerate(bars):
        y = top + index * row
        length = max(1.5, min(1.0, max(0.0, bar.value) / longest) * room)
        name = _told(names[index], bar.name)
        body.append(
            f'<text class="name" x="{left - 10:.1f}" y="{y + 17}" text-anchor="end">{name}</text>'
            f'<rect class="track" x="{left:.1f}" y="{y + 4}" width="{room:.1f}" height="18" rx="4"/>'
            f'<rect class="{"muted" if bar.muted else "fill-0"}" x="{left:.1f}" y="{y + 4}" width="{length:.1f}" '
            f'height="18" rx="4"/>'
            f'<text class="value" x="{left + room + 10:.1f}" y="{y + 17}">{escape(bar.text)}</text>'
        )
    return _svg(width, top + row * len(bars) + 6, title, "".join(body))


def frequency_chart(
    counts: Sequence[float], *, title: str, x_label: str, y_label: str, width: int = 1000, height: int = 320
) -> str:
    """Frequencies in per cent, sorted, and the level of equal frequencies; "" if all counts are 0."""
    total = sum(counts)
    if not total > 0:
        return ""
    shares = [100 * count / total for count in sorted(counts, reverse=True)]
    top, bottom, right = 46.0, height - 42.0, width - 14.0
    y_axis = linear_axis(0, shares[0], bottom, top, count=4)
    left = 18.0 + 7.0 * max(len(y_axis.label(tick)) for tick in y_axis.ticks)
    x_axis = linear_axis(0, len(shares), left, right, count=6, tight=True)
    slot = (right - left) / len(shares)
    gap = min(1.5, slot / 4) if slot > 2 else 0.0
    path = []
    for index, share in enumerate(shares):
        if share > 0:
            x, y = left + index * slot, y_axis.pixel(share)
            path.append(f"M{x:.2f} {bottom:.1f}V{y:.2f}h{slot - gap:.2f}V{bottom:.1f}z")
    level = y_axis.pixel(100 / len(shares))
    body = (
        _frame(x_axis, y_axis, x_label, width, height)
        + f'<text class="tick" x="{left:.1f}" y="{top - 12:.1f}">{escape(y_label)}</text>'
        + f'<path class="fill-0" d="{"".join(path)}"/>'
        + f'<line class="reference" x1="{left:.1f}" x2="{right:.1f}" y1="{level:.1f}" y2="{level:.1f}"/>'
        + f'<text class="note" x="{right:.1f}" y="{level - 6:.1f}" text-anchor="end">all equally frequent</text>'
    )
    return _svg(width, height, title, body)


def _thinned(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    clean = [(x, finite(y)) for x, y in points if finite(x) is not None]
    if len(clean) <= MOST_POINTS:
        return clean
    stretch = math.ceil(len(clean) / (MOST_POINTS // 2))
    kept: list[tuple[float, float | None]] = []
    for start in range(0, len(clean), stretch):
        part = clean[start : start + stretch]
        known = [index for index, (_, y) in enumerate(part) if y is not None]
        gaps = [index for index, (_, y) in enumerate(part) if y is None][:1]
        extremes = {choose(known, key=lambda index: part[index][1] or 0.0) for choose in (min, max)} if known else set()
        kept += [part[index] for index in sorted(extremes | set(gaps))]
    return kept


def _line(line: Series, number: int, x_axis: Axis, y_axis: Axis, x_label: str) -> str:
    colour = number % NUM_COLOURS
    path, dots, pen_down = [], [], False
    for index, (x, y) in enumerate(line.points):
        if y is None:
            pen_down = False
            continue
        place = f"{x_axis.pixel(x):.1f} {y_axis.pixel(y):.1f}"
        path.append(f"{'L' if pen_down else 'M'}{place}")
        # a point between two gaps is not visible as a line
        alone = not pen_down and (index + 1 == len(line.points) or line.points[index + 1][1] is None)
        pen_down = True
        if len(line.points) <= 120 or alone:
            text = escape(f"{line.name}, {x_label} {format_number(x)}: {format_number(y)}")
            shown = "dot" if line.markers or alone else "dot ghost"
            radius = 3.2 if line.markers or alone else 6
            cx, cy = place.split()
            dots.append(
                f'<circle class="{shown} fill-{colour}" cx="{cx}" cy="{cy}" r="{radius}"><title>{text}</title></circle>'
            )
    return f'<path class="line series-{colour}"{_dashes(number)} d="{"".join(path)}"/>{"".join(dots)}'


def _dashes(number: int) -> str:
    dashes = DASHES[number // NUM_COLOURS % len(DASHES)]
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def _frame(x_axis: Axis, y_axis: Axis, x_label: str, width: int, height: int) -> str:
    parts = []
    left, right, bottom = x_axis.start, x_axis.end, y_axis.start
    for tick in y_axis.ticks:
        y = y_axis.pixel(tick)
        parts.append(f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{y_axis.label(tick)}</text>'
        )
    for tick in x_axis.ticks:
        x = x_axis.pixel(tick)
        # the last number would extend beyond the edge of the picture
        anchor = "end" if x > width - 24 else "middle"
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="{anchor}">{x_axis.label(tick)}</text>'
        )
    parts.append(f'<line class="axis" x1="{left:.1f}" x2="{right:.1f}" y1="{bottom:.1f}" y2="{bottom:.1f}"/>')
    middle = (left + right) / 2
    parts.append(f'<text class="tick" x="{middle:.1f}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join(parts)


def _legend_width(name: str) -> float:
    return 6.8 * len(name) + 32


def _legend_rows(names: Sequence[str], right: float) -> list[list[str]]:
    """Names in rows of at most the width of a chart."""
    rows: list[list[str]] = [[]]
    for name in names:
        if rows[-1] and sum(map(_legend_width, [*rows[-1], name])) > right:
            rows.append([])
        rows[-1].append(name)
    return rows


def _legend(rows: Sequence[Sequence[str]], right: float, y: float) -> str:
    """Names with their colours in rows, aligned to the right edge."""
    parts, number = [], 0
    for row, names in enumerate(rows):
        x, middle = right, y + 18 * row
        for index in reversed(range(len(names))):
            shown = _clipped(names[index], int((right - 32) / 6.8))
            x -= _legend_width(shown)
            parts.append(f'<text class="tick" x="{x + 28:.1f}" y="{middle}">{_told(shown, names[index])}</text>')
            colour, dashes = (number + index) % NUM_COLOURS, _dashes(number + index)
            sample = f'<rect class="fill-{colour}" x="{x + 8:.1f}" y="{middle - 7}" width="14" height="5" rx="2.5"/>'
            if dashes:
                line = f'x1="{x + 8:.1f}" x2="{x + 22:.1f}" y1="{middle - 4}" y2="{middle - 4}" stroke-width="4"'
                sample = f'<line class="series-{colour}" {line}{dashes}/>'
            parts.append(sample)
        number += len(names)
    return "".join(parts)


def _clipped(name: str, most: int) -> str:
    """A name of at most so many letters, without its middle: ends tell names apart as often as beginnings."""
    return name if len(name) <= most else f"{name[: most // 2]}\u2026{name[len(name) - (most - most // 2 - 1) :]}"


def _told(shown: str, name: str) -> str:
    """The content of a text element, with the whole name as a tip if it is clipped."""
    return escape(shown) if shown == name else f"<title>{escape(name)}</title>{escape(shown)}"


def standalone(svg: str) -> str:
    """The content of an .svg file with a chart and its style sheet.

    CSS variables are replaced by the colours of the light scheme, because many programs that draw SVG do not support
    them.
    """
    size = re.match(r'<svg viewBox="0 0 (\d+) (\d+)"', svg)
    assert size is not None, "not a chart of this file"
    width, height = int(size[1]), int(size[2])
    style = files("mage.report").joinpath("style.css").read_text(encoding="utf-8")
    own = "svg { font-family: system-ui, sans-serif; } .sheet { fill: var(--raised); }"
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 40}" height="{height + 30}" '
    opening += f'viewBox="-20 -15 {width + 40} {height + 30}"'
    sheet = f'<rect class="sheet" x="-20" y="-15" width="{width + 40}" height="{height + 30}"/>'
    start = svg.index(">") + 1
    head = opening + svg[size.end() : start]
    whole = f"{head}<style>{style}\n{own}</style>{sheet}{svg[start:]}\n"
    light = style[style.index(":root") : style.index("}")]
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", light))
    return re.sub(r"var\(--([\w-]+)\)", lambda variable: colours.get(variable[1], variable[0]), whole)


def _svg(width: int, height: int, title: str, body: str) -> str:
    name = escape(title, quote=True)
    heading = f'<text class="title" x="0" y="18">{escape(title)}</text>'
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">{heading}{body}</svg>'
