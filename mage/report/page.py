"""A run folder as one self-contained HTML page: pictures, charts and styles are embedded, nothing is loaded."""

import math
from html import escape
from importlib.resources import files
from pathlib import Path

from mage import atomic
from mage.report.adaptation import adaptation_section
from mage.report.contents import Contents, read_contents
from mage.report.facts import recipe_values, run_section
from mage.report.glossary import HEADLINES, describe, finite, format_seconds, format_value, is_distance
from mage.report.sections import Section, all_sections, interval_text


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder, atomically. Raises ValueError if it is not a run folder."""
    folder = Path(run_folder)
    path = folder / "report.html"
    atomic.write_text(path, build_page(read_contents(folder)))
    return path


def build_page(contents: Contents) -> str:
    """The HTML text of the page."""
    sections = all_sections(contents)
    sections.insert(1 if sections and sections[0].anchor == "samples" else 0, run_section(contents))
    sections = [section for section in sections if section.body]
    if (adaptation := adaptation_section(contents)).body:
        sections.insert(0, adaptation)
    numbers = _numbers(contents)
    if numbers:
        place = next((index for index, section in enumerate(sections) if section.anchor == "timings"), len(sections))
        lead = "All metrics of this run, with explanations and protocols."
        sections.insert(place, Section("numbers", "All numbers", lead, numbers))
    heading = f"{_heading(contents)}{_cards(contents)}"
    return page_frame(contents.name, heading, sections, contents.problems, contents)


def page_frame(
    title: str,
    heading: str,
    sections: list[Section],
    problems: list[str],
    contents: Contents | None = None,
    *,
    style: str = "",
    script: str = "",
) -> str:
    """The HTML text of a page. contents: source of the metrics next to headings of sections.

    style, script: CSS after the common one, and JavaScript at the end of the page.
    """
    links = "".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in sections)
    style = files("mage.report").joinpath("style.css").read_text(encoding="utf-8") + style
    end = f"<script>\n{script}</script>\n" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)} &middot; MAGE</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<header><div class="page">{heading}</div></header>\n'
        f'<nav aria-label="Sections"><div class="page">{links}</div></nav>\n<main class="page">\n'
        + "\n".join(_section(section, contents) for section in sections)
        + _problems(problems)
        + '\n</main>\n<footer class="page">Written by mage-vision. This page is one file and loads nothing.</footer>\n'
        f"{end}</body>\n</html>\n"
    )


def _heading(contents: Contents) -> str:
    facts = [f"{contents.date:%d %B %Y}".lstrip("0")]
    recipe = recipe_values(contents)
    if recipe.get("name"):
        facts.insert(0, f"recipe {recipe['name']}")
    total = finite(contents.part("timings").get("total"))
    if total is not None:
        facts.append(format_seconds(total))
    if contents.results.get("seed") is not None:
        facts.append(f"seed {contents.results['seed']}")
    line = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
    return f'<p class="eyebrow">MAGE run report</p><h1>{escape(contents.name)}</h1><p class="byline">{line}</p>'


def _cards(contents: Contents) -> str:
    metrics = contents.part("metrics")
    names = [name for name in HEADLINES if finite(metrics.get(name)) is not None]
    names += [str(name) for name in metrics if is_distance(str(name)) and finite(metrics[name]) is not None]
    cards = "".join(
        f'<div class="card"><div class="number">{escape(format_value(name, metrics[name]))}</div>'
        f'<div class="label">{escape(describe(name).title)}</div>{_between(contents, name)}'
        f"{_comparison(name, contents)}</div>"
        for name in names
    )
    columns = len(names) if len(names) <= 5 else math.ceil(len(names) / 2)
    return f'<div class="cards" style="--columns: {columns}">{cards}</div>' if cards else ""


def _comparison(name: str, contents: Contents) -> str:
    """The numbers with which a headline metric is compared; "" if there are none."""
    partners = {
        "sample_confident_share": ("real_confident_share", "real images"),
        "linear_probe_accuracy": ("raw_pixel_accuracy", "raw pixels"),
        "knn_accuracy": ("raw_pixel_accuracy", "raw pixels"),
        "codes_used": ("codebook_perplexity", "perplexity"),
        "near_copy_share": ("near_copy_share_restored", "reconstructions of test images"),
    }
    partner, label = partners.get(name, (f"{name}_real", "real images"))
    against = [(label, partner, contents.part("metrics").get(partner))]
    if contents.packaged is not None:
        against.append(("packaged model", name, contents.packaged.part("metrics").get(name)))
    return "".join(
        f'<div class="against">{escape(text)}: {escape(format_value(metric, value))}</div>'
        for text, metric, value in against
        if finite(value) is not None
    )


def _between(contents: Contents, name: str) -> str:
    """The 95 % interval below a number; "" if there is none."""
    text = interval_text(contents.intervals, name).strip(" ()")
    return f'<div class="interval">{text}</div>' if text else ""


def _numbers(contents: Contents) -> str:
    metrics, protocols = contents.part("metrics"), contents.results.get("protocol")
    rows = []
    for name, value in metrics.items():
        metric = describe(str(name))
        protocol = protocols.get(name, "") if isinstance(protocols, dict) else ""
        better = f" Better: {metric.better}." if metric.better else ""
        method = f'<div class="protocol">{escape(str(protocol))}</div>' if protocol else ""
        key = f"<code>{escape(str(name))}</code>" if metric.title != name else ""
        rows.append(
            f'<tr><th scope="row">{escape(metric.title)}{key}</th><td class="value">'
            f"{escape(format_value(str(name), value))}{_between(contents, str(name))}"
            f"</td><td>{escape(metric.explanation + better)}{method}</td></tr>"
        )
    if not rows:
        return ""
    note = f'<p class="after">{escape(protocols)}</p>' if isinstance(protocols, str) else ""
    return f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div>{note}'


def _section(section: Section, contents: Contents | None) -> str:
    metrics = contents.part("metrics") if contents is not None else {}
    names = [name for name in section.metrics if finite(metrics.get(name)) is not None]
    facts = "".join(
        f'<div><dt title="{escape(describe(name).explanation, quote=True)}">{escape(describe(name).title)}</dt>'
        f"<dd>{escape(format_value(name, metrics[name]))}</dd></div>"
        for name in names
    )
    aside = f'<dl class="aside">{facts}</dl>' if facts else ""
    return (
        f'<section id="{section.anchor}"><div class="intro"><div><h2>{escape(section.title)}</h2>'
        f'<p class="lead">{section.lead}</p></div>{aside}</div>{section.body}</section>'
    )


def _problems(problems: list[str]) -> str:
    items = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    return f'<section class="problems"><h2>Left out</h2><ul>{items}</ul></section>' if items else ""
