"""The page of `mage explore`: a map of a folder's images, groups, near-duplicates and outliers, in one file."""

import json
from html import escape
from importlib.resources import files
from pathlib import Path

from mage import atomic
from mage.evaluation.neighbours import DUPLICATE_SHARE, NEIGHBOURS, Pair
from mage.report.page import page_frame
from mage.report.sections import Section
from mage.report.thumbnails import COLUMNS, place_of, sheet_styles, shown
from mage.runs.explore import THUMBNAIL, Exploration

IN_GROUP = 24
"""Largest number of images that are shown of a group."""
MOST_PAIRS = 60
"""Largest number of near-duplicates that are shown."""
MOST_OUTLIERS = 24
MOST_PICTURES = 400
"""Images up to which the map shows pictures at first, not dots."""
MOST_LABELS = 12
"""Largest number of sub-folders that get a colour of their own on the map."""
MOST_SKIPPED = 20
"""Largest number of unreadable files that are named."""


def write_exploration(found: Exploration, path: Path) -> Path:
    """Write the page, atomically."""
    atomic.write_text(path, build_exploration(found))
    return path


def build_exploration(found: Exploration) -> str:
    """The HTML text of the page."""
    sections = [_map(found), _groups(found), _duplicates(found), _outliers(found), _how(found)]
    own = files("mage.report")
    style = own.joinpath("explore.css").read_text(encoding="utf-8") + sheet_styles(found.thumbnails, THUMBNAIL)
    script = own.joinpath("explore.js").read_text(encoding="utf-8")
    name = Path(found.name).resolve().name if Path(found.name).is_dir() else found.name
    count = len(found.files)
    facts = [f"{count:,} of {found.total:,} images" if count < found.total else f"{count:,} images"]
    facts += [
        _number(found.clusters.count, "group"),
        _number(len(found.neighbours.near_duplicates()), "near-duplicate pair"),
    ]
    facts += [f"{len(found.skipped):,} unreadable"] if found.skipped else []
    line = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
    heading = f'<p class="eyebrow">MAGE folder map</p><h1>{escape(name)}</h1><p class="byline">{line}</p>'
    return page_frame(name, heading, sections, _skipped(found), style=style, script=script)


def group_names(found: Exploration) -> list[str]:
    """The groups with their sizes."""
    return [
        f"group {cluster + 1} ({len(found.clusters.members(cluster)):,})" for cluster in range(found.clusters.count)
    ]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _map(found: Exploration) -> Section:
    positions, labels = found.projection.positions.round(4).tolist(), found.labels
    dots = "".join(
        f'<b class="k{group % 12}" style="left:{100 * x:.2f}%;top:{100 * (1 - y):.2f}%;{place_of(index)}"></b>'
        for index, ((x, y), group) in enumerate(zip(positions, found.clusters.labels.tolist(), strict=True))
    )
    checked, kind = (" checked", " pictures") if len(positions) <= MOST_PICTURES else ("", "")
    label_names = sorted(set(labels))
    data = {
        "columns": COLUMNS,
        "files": found.files,
        "labels": labels,
        "label_names": label_names,
        "groups": found.clusters.labels.tolist(),
        "group_names": group_names(found),
        "x": [x for x, _ in positions],
        "y": [round(1 - y, 4) for _, y in positions],
    }
    by_label = (
        '<label>Colours: <select><option value="groups">groups</option><option value="labels">sub-folders</option>'
        "</select></label>"
        if 2 <= len(label_names) <= MOST_LABELS
        else ""
    )
    body = (
        f'<div class="controls"><label class="switch"><input type="checkbox"{checked}>Pictures</label>'
        f'{by_label}<div class="controls legend" style="margin:0"></div></div>'
        f'<div class="map{kind}" tabindex="0" role="application" aria-label="Map of the images; the arrow keys go '
        f'through them"><div class="field">{dots}</div>'
        '<div class="card" hidden><i class="t" role="img"></i><p></p><p></p></div>'
        f'<span class="spoken" role="status"></span></div><script type="application/json" id="images">{_json(data)}'
        "</script>"
    )
    lead = (
        f"{escape(found.projection.method)} Point at an image, or tap it, to see more of it; a group's button shows it "
        "alone."
    )
    return Section("map", "Map", lead, body)


def _json(data: object) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _groups(found: Exploration) -> Section:
    parts = []
    for cluster, name in enumerate(group_names(found)):
        members = found.clusters.members(cluster)
        labels = [found.labels[index] for index in members if found.labels[index]]
        common = sorted(set(labels), key=lambda label: (-labels.count(label), label))[:3]
        told = ", ".join(f"{escape(label)}: {labels.count(label):,}" for label in common)
        pictures = "".join(shown(index, found.files[index]) for index in members[:IN_GROUP])
        parts.append(
            f'<div class="group k{cluster % 12}"><h3>{escape(name)}<span>{told}</span></h3>'
            f'<div class="row">{pictures}</div></div>'
        )
    lead = f"{escape(found.clusters.method)} Those closest to the centre of a group come first."
    return Section("groups", "Groups", lead, "".join(parts))


def _duplicates(found: Exploration) -> Section:
    pairs = found.neighbours.near_duplicates()
    lead = (
        f"Pairs whose distance is at most {DUPLICATE_SHARE:.0%} of the typical distance of neighbours in this folder, "
        "the closest first. A split into training and test images must not part them."
    ).replace("%", "&nbsp;%")
    if not pairs:
        return Section("duplicates", "Near-duplicates", lead, "<p>There are none.</p>")
    more = (
        f'<p class="after">{len(pairs) - MOST_PAIRS:,} more pairs are not shown.</p>' if len(pairs) > MOST_PAIRS else ""
    )
    tiles = "".join(_pair(found, pair) for pair in pairs[:MOST_PAIRS])
    return Section("duplicates", "Near-duplicates", lead, f'<div class="tiles">{tiles}</div>{more}')


def _pair(found: Exploration, pair: Pair) -> str:
    names = [found.files[index] for index in (pair.first, pair.second)]
    pictures = "".join(shown(index, name) for index, name in zip((pair.first, pair.second), names, strict=True))
    distance = "equal features" if pair.distance == 0 else f"distance {100 * pair.distance:.2g}&nbsp;%"
    text = "<br>".join(escape(name) for name in names)
    return f'<div class="tile"><div class="row">{pictures}</div><p>{text}</p><p class="number">{distance}</p></div>'


def _outliers(found: Exploration) -> Section:
    unusual = found.neighbours.unusualness.tolist()
    count = min(MOST_OUTLIERS, len(found.files) // 4)
    tiles = "".join(
        f'<div class="tile">{shown(index, found.files[index])}<p>{escape(found.files[index])}</p>'
        f'<p class="number">{unusual[index]:.2f} times the typical distance of neighbours</p></div>'
        for index in found.neighbours.outliers(count)
    )
    lead = (
        f"Images that are far from their {NEIGHBOURS} nearest neighbours: rare subjects, often scans, screenshots, or "
        "damaged pictures. The typical distance is the median over all images."
    )
    body = f'<div class="tiles">{tiles}</div>' if tiles else "<p>There are too few images.</p>"
    return Section("outliers", "Outliers", lead, body)


def _how(found: Exploration) -> Section:
    count = len(found.files)
    chosen = "all" if count + len(found.skipped) >= found.total else f"{count:,}, spread over the order of their names"
    facts = [
        ("Features", f"{found.model}; each standardised to mean 0 and deviation 1"),
        ("Images", f"{chosen} of {found.total:,}"),
        ("Map", found.projection.method),
        ("Groups", found.clusters.method),
        ("Near-duplicates, outliers", "Euclidean distances of the standardised features, in double precision"),
    ]
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return Section("how", "How it was made", "Data and methods of this page.", f'<dl class="facts how">{rows}</dl>')


def _skipped(found: Exploration) -> list[str]:
    named = [f"{path} cannot be read as an image" for path in found.skipped[:MOST_SKIPPED]]
    more = len(found.skipped) - len(named)
    return [*named, f"{more:,} more files cannot be read"] if more else named
