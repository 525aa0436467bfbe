"""Charts as inline SVG: nothing that is not finite is drawn, nothing is drawn of nothing."""

import math
import re
from xml.etree import ElementTree

import pytest

from mage.report.charts import MOST_POINTS, Bar, Series, bar_chart, frequency_chart, line_chart, standalone

LINE = Series("training", [(0, 3.0), (10, 2.0), (20, 1.5)])


def by_class(svg: str, name: str) -> list[ElementTree.Element]:
    """Elements of a chart that have a class; parsing fails unless the chart is well-formed."""
    return [each for each in ElementTree.fromstring(svg).iter() if name in each.get("class", "").split()]


def strokes(svg: str) -> list[list[tuple[float, float]]]:
    """The unbroken pieces of the first line of a chart."""
    pieces = by_class(svg, "line")[0].attrib["d"].split("M")[1:]
    return [[(float(x), float(y)) for x, y in (point.split() for point in piece.split("L"))] for piece in pieces]


def test_a_line_goes_through_its_points() -> None:
    chart = line_chart([LINE], title="Loss")
    (line,) = strokes(chart)
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    ys = [y for _, y in line]
    assert ys[0] < ys[1] < ys[2], "down the page"
    assert (ys[1] - ys[0]) / (ys[2] - ys[1]) == pytest.approx(2, rel=0.01)
    assert ">Loss<" in chart


@pytest.mark.parametrize("gap", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_gap(gap: float | None) -> None:
    chart = line_chart(
        [Series("loss", [(0, 3.0), (1, 2.0), (2, gap), (3, 1.0), (4, gap), (5, 2.0), (6, 3.0)])], title=""
    )
    assert [len(piece) for piece in strokes(chart)] == [2, 1, 2]
    assert not re.search(r"\b(nan|inf|None)\b", chart)
    alone = [dot for dot in by_class(chart, "dot") if "ghost" not in dot.attrib["class"].split()]
    assert len(alone) == 1, "a point between gaps is shown as a dot"
    assert [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in alone] == strokes(chart)[1]


def test_a_step_that_is_not_finite_is_dropped() -> None:
    chart = line_chart([Series("loss", [(0, 3.0), (math.nan, 1.0), (math.inf, 1.0), (2, 2.0)])], title="")
    assert [len(piece) for piece in strokes(chart)] == [2]


@pytest.mark.parametrize("series", [[], [Series("loss", [])], [Series("loss", [(0, None), (1, math.nan)])]])
def test_nothing_finite_gives_no_line_chart(series: list[Series]) -> None:
    assert line_chart(series, title="Loss") == ""


def test_nothing_gives_no_other_chart() -> None:
    assert bar_chart([], title="Bars") == ""
    assert frequency_chart([], title="Codes", x_label="code", y_label="%") == ""
    assert frequency_chart([0, 0, 0], title="Codes", x_label="code", y_label="%") == ""


def test_an_empty_line_takes_no_place_in_the_legend() -> None:
    other = Series("validation", [(0, 2.5), (20, 2.0)])
    empty = Series("nothing", [(0, None)])
    both = line_chart([LINE, other, empty], title="")
    assert len(by_class(both, "line")) == 2
    assert ">training<" in both
    assert ">validation<" in both
    assert "nothing" not in both
    assert ">training<" not in line_chart([LINE, empty], title=""), "one line needs no legend"


def test_wide_ranges_are_logarithmic() -> None:
    chart = line_chart([Series("lr", [(0, 1.0), (1, 10.0), (2, 100.0)])], title="")
    ((_, first), (_, second), (_, third)) = strokes(chart)[0]
    assert first - second == pytest.approx(second - third, abs=0.3)
    chart = line_chart([Series("lr", [(0, 0.0), (1, 10.0), (2, 100.0)])], title="")  # zero has no logarithm
    ((_, first), (_, second), (_, third)) = strokes(chart)[0]
    assert (second - third) / (first - second) == pytest.approx(9, rel=0.05)


def test_points_that_double_lie_evenly_with_a_tick_at_each() -> None:
    chart = line_chart([Series("halton", [(4, 3.0), (8, 2.0), (16, 1.0), (64, 2.0)], markers=True)], title="")
    places = [x for x, _ in strokes(chart)[0]]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.3)
    assert places[3] - places[2] == pytest.approx(2 * (places[1] - places[0]), abs=0.3)
    assert {"4", "8", "16", "64"} <= {each.text for each in by_class(chart, "tick")}
    even = [Series("guidance", [(0, 3.0), (1, 2.0), (2, 1.0)], markers=True)]
    (first, second, third) = [x for x, _ in strokes(line_chart(even, title=""))[0]]
    assert second - first == pytest.approx(third - second, abs=0.3), "zero has no logarithm"


def test_long_lines_are_thinned_but_keep_their_peaks_and_gaps() -> None:
    ys: list[float | None] = [1.0 + 0.001 * (step % 7) for step in range(20_000)]
    ys[7777], ys[12_345], ys[15_000] = 3.0, 0.5, math.nan
    chart = line_chart([Series("loss", list(enumerate(ys)))], title="")
    pieces = strokes(chart)
    points = [point for piece in pieces for point in piece]
    assert len(pieces) == 2
    assert len(points) <= MOST_POINTS
    heights = sorted(y for _, y in points)
    assert heights[1] - heights[0] > 50, "the peak"
    assert heights[-1] - heights[-2] > 20, "the dip"


def test_bars_are_as_long_as_their_values() -> None:
    bars = [Bar("linear probe", 0.9, "90 %"), Bar("raw pixels", 0.45, "45 %", muted=True)]
    chart = bar_chart(bars, title="Accuracy", most=1.0)
    room = float(by_class(chart, "track")[0].attrib["width"])
    assert float(by_class(chart, "fill-0")[0].attrib["width"]) == pytest.approx(0.9 * room, abs=0.1)
    assert float(by_class(chart, "muted")[0].attrib["width"]) == pytest.approx(0.45 * room, abs=0.1)
    longest = by_class(bar_chart(bars, title="Accuracy"), "fill-0")[0]
    assert float(longest.attrib["width"]) == pytest.approx(room, abs=0.1)
    assert [each.text for each in by_class(chart, "value")] == ["90 %", "45 %"]
    assert by_class(bar_chart([Bar("nothing", 0.0, "0 s")], title=""), "track"), "zero is the longest"


@pytest.mark.parametrize("width", [500, 1000])
def test_long_names_leave_room_for_bars_and_are_told_in_full_as_a_tip(width: int) -> None:
    names = [f"runs/photographs of the harbour/2026-03-0{day} with a wider decoder and more steps" for day in (1, 2)]
    chart = bar_chart([Bar(name, 0.5, "50 %") for name in names], title="Accuracy", width=width)
    for track in by_class(chart, "track"):
        assert float(track.attrib["width"]) > 0.45 * width
    shown = by_class(chart, "name")
    assert [text[0].text for text in shown] == names
    assert all(len(text[0].tail or "") * 6.6 < 0.4 * width for text in shown)


def test_more_than_five_lines_differ_and_their_legend_stays_inside_the_chart() -> None:
    lines = [Series(f"a run with rather a long name {number}", [(0, number), (1, 2 * number)]) for number in range(12)]
    chart = line_chart(lines, title="Loss", width=500, height=260)
    looks = [(line.attrib["class"], line.get("stroke-dasharray")) for line in by_class(chart, "line")]
    assert len(set(looks)) == 12
    root = ElementTree.fromstring(chart)
    texts = [each for each in by_class(chart, "tick") if "long name" in (each.text or "")]
    assert len(texts) == 12
    assert all(0 <= float(text.attrib["x"]) < 500 for text in texts)
    lowest = max(float(text.attrib["y"]) for text in texts)
    assert all(y >= lowest for piece in strokes(chart) for _, y in piece), "no name lies on a line"
    assert int(root.attrib["viewBox"].split()[-1]) - lowest > 200, "the lines keep their room"


def test_frequencies_are_sorted_and_the_even_level_is_marked() -> None:
    chart = frequency_chart([1, 0, 6, 3], title="Codes", x_label="code", y_label="% of tokens")
    path = by_class(chart, "fill-0")[0].attrib["d"]
    columns = [(float(base), float(top)) for base, top in re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", path)]
    heights = [base - top for base, top in columns]
    assert [height / heights[2] for height in heights] == pytest.approx([6, 3, 1], rel=0.01)
    level = columns[0][0] - float(by_class(chart, "reference")[0].attrib["y1"])
    assert level / heights[2] == pytest.approx(2.5, rel=0.01)


def test_names_cannot_break_out_of_a_chart() -> None:
    name = "<script>\"&'"
    other = Series("other", [(0, 1.0), (1, 2.0)])
    charts = [
        line_chart([Series(name, [(0, 1.0), (1, 2.0)]), other], title=name, x_label=name),
        bar_chart([Bar(name, 1.0, name)], title=name),
        frequency_chart([1, 2], title=name, x_label=name, y_label=name),
    ]
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert root.get("aria-label") == name
        assert not any(each.tag == "script" for each in root.iter())
        assert sum(name in (each.text or "") for each in root.iter()) >= 3


def test_a_chart_stands_alone_as_a_file() -> None:
    chart = line_chart([Series("a", [(0, 1.0), (1, 2.0)], markers=True)], title="one & two")
    alone = ElementTree.fromstring(standalone(chart))
    assert alone.tag == "{http://www.w3.org/2000/svg}svg"
    assert alone.get("aria-label") == "one & two"
    assert int(alone.attrib["width"]) > 1000
    style = next(each for each in alone if each.tag.endswith("style"))
    assert "--c0" in (style.text or "")
    assert sum(each.tag.endswith("path") for each in alone.iter()) == chart.count("<path")
