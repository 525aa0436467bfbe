"""A run folder as one page: it loads nothing, hides no problem, and needs hardly anything."""

import json
import math
import os
import re
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from mage import images
from mage.evaluation.reconstruction import PixelFidelity
from mage.report import write_report
from mage.report.contents import MOST_STEPS, read_contents
from mage.report.glossary import describe, finite, format_number, format_seconds, format_value, is_distance

NOT_CLOSED = {"meta", "link", "img", "br", "hr", "input"}
ADDRESSES = {"src", "href", "xlink:href", "srcset", "action", "data", "poster"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.styles = ""
        self.feed(text)
        self.close()
        assert self.open == [], "tags that were never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.addresses += [value or "" for name, value in attrs if name in ADDRESSES]
        self.styles += "".join(value or "" for name, value in attrs if name == "style")
        if tag not in NOT_CLOSED:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in NOT_CLOSED:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles += data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        """What a reader sees, in one line."""
        return " ".join(" ".join(self.words).split())

    @property
    def headings(self) -> list[str | None]:
        """Anchors of the sections."""
        return [attributes.get("id") for tag, attributes in self.tags if tag == "section" and "id" in attributes]


def page(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def picture(path: Path, *, width: int = 8) -> None:
    images.save_png(path, torch.rand(3, 6, width, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def full(run_folder: Path) -> Path:
    """A run with a bit of everything, a NaN and a null among it."""
    (run_folder / "recipe.yaml").write_text("name: demo <b>\ndata: {name: digits}\n")
    lines = [{"step": step, "loss": 5.0 / step, "lr": 1e-3 * step, "grad_norm": None} for step in (1, 2, 3)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    text += '{"step": 4, "loss": NaN, "valid/loss": 2.0}\n{"step": 5, "loss": 0.9}\n{"step": 6, "lo'
    (run_folder / "metrics.jsonl").write_text(text)
    (run_folder / "tokenizer").mkdir()
    (run_folder / "tokenizer" / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0, "psnr_db": 20.0}\n')
    results = {
        "command": "mage demo --out 'a & b'",
        "commit": "abc123",
        "machine": "a <fast> machine",
        "seed": 7,
        "timings": {"pretraining": 100.0, "tokenizer": 60.5, "total": 165.0},
        "metrics": {
            "psnr_db": 21.234,
            "linear_probe_accuracy": 0.875,
            "raw_pixel_accuracy": 0.5,
            "sample_confident_share": math.nan,
            "fd_efflite0_1000": 12.345,
            "<i>new</i>": 3,
        },
        "protocol": {"psnr_db": "on 100 <test> images"},
    }
    (run_folder / "results.json").write_text(json.dumps(results))
    (run_folder / "codes.json").write_text(json.dumps({"counts": [5, 0, 3, 2]}))
    for name in ("samples", "reconstruct", "edit", "nearest", "tokenizer"):
        picture(run_folder / "figures" / f"{name}.png")
    for step in (100, 20, 3):
        picture(run_folder / "samples" / f"step-{step}.png", width=step % 7 + 2)
    return run_folder


def test_a_full_run_has_all_sections_in_a_readers_order(full: Path) -> None:
    found = page(full)
    assert found.headings == [
        "samples", "run", "reconstructions", "edits", "training", "codebook", "representations", "nearest", "numbers",
        "timings",
    ]  # fmt: skip
    links = [attributes["href"] for tag, attributes in found.tags if tag == "a"]
    assert links == [f"#{anchor}" for anchor in found.headings]
    assert "Left out" not in found.text
    for fact in (
        "21.2 dB",
        "87.5 %",
        "12.35",
        "2 min 45 s in all",
        "seed 7",
        "abc123",
        "name: demo <b>",
        "3 of 4 codes",
    ):
        assert fact in found.text.replace("\N{NO-BREAK SPACE}", " "), fact
    assert sum(tag == "svg" for tag, _ in found.tags) >= 6


def test_a_run_says_its_data_hardware_and_length(run_folder: Path) -> None:
    (run_folder / "recipe.yaml").write_text(
        "name: photos\nseed: 3\ndata: {name: scans, validation: {share: 0.1}}\nmodel: {depth: 4, width: 96}\n"
        "pretraining: {batch_size: 32}\ntokenizer_training: {batch_size: 8}\n"
    )
    facts = {
        "kind": "mage", "command": "mage pretrain --out <run>", "commit": "abc", "machine": "A CPU, 2 cores",
        "device": "cpu", "precision": "float32", "processes": 2, "started": "2026-11-28 10:00:00",
        "parameters": 1234567, "images": 900, "classes": ["left", "right"],
    }  # fmt: skip
    (run_folder / "run.json").write_text(json.dumps(facts))
    (run_folder / "metrics.jsonl").write_text('{"step": 50, "loss": 2.0, "seconds": 90.0}\n')
    found = page(run_folder)
    for fact in (
        "scans, 900 training images, 2 classes (left, right), a further 10 % held out for validation",
        "recipe photos, 4 blocks of width 96, 1,234,567 weights trained",
        "50 steps of 32, 1.78 passes over the data",
        "A CPU, 2 cores, cpu, float32, 2 processes",
        "1 min 30 s of training, started 2026-11-28 10:00:00",
        "mage pretrain --out <run>",
    ):
        assert fact in found.text.replace("\N{NO-BREAK SPACE}", " "), fact
    (run_folder / "run.json").write_text(json.dumps(facts | {"kind": "tokenizer"}))
    assert "50 steps of 8" in page(run_folder).text, "a tokenizer has its own schedule"
    (run_folder / "run.json").write_text(
        '{"kind": 3, "images": "many", "classes": {}, "machine": [1], "processes": "x"}'
    )
    assert "50 steps of 32" in page(run_folder).text, "facts of the wrong type are left out"


def test_reconstructions_of_a_tokenizer_are_not_called_samples(run_folder: Path) -> None:
    (run_folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "psnr_db": 20.0, "discriminator/lr": 0.1}\n')
    picture(run_folder / "samples" / "step-1.png")
    found = page(run_folder)
    assert found.headings == ["progress", "training"]
    assert "Validation images, each above its reconstruction" in found.text
    assert "Learning rate of the discriminator" in found.text


def test_every_evaluation_in_the_folder_is_shown_with_its_intervals(run_folder: Path) -> None:
    evaluations: dict[str, tuple[str, float, object]] = {
        "representations.json": ("knn_accuracy", 0.8, [0.75, 0.84]),
        "generation.json": ("near_copy_share", 0.01, [0.004, 0.02]),
        "evaluation.json": ("histogram_probe_accuracy", 0.4, [0.3, 0.5]),
    }
    for file, (name, value, interval) in evaluations.items():
        details = {name: {"interval": interval}, "other": {"interval": [1]}, "text": "x"}
        (run_folder / file).write_text(json.dumps({"metrics": {name: value}, "details": details}))
    (run_folder / "results.json").write_text(
        json.dumps({"metrics": {"sample_confident_share": 0.5}, "intervals": {"sample_confident_share": [0.41, 0.59]}})
    )
    picture(run_folder / "side_by_side.png")
    found = page(run_folder)
    for interval in ("75.0 to 84.0", "0.4 to 2.0", "30.0 to 50.0", "41.0 to 59.0"):
        assert interval in found.text, interval
    assert "reconstructions" in found.headings


def test_half_a_width_is_an_interval_around_the_value(run_folder: Path) -> None:
    values = {"metrics": {"fewshot5_accuracy": 0.5}, "details": {"fewshot5_accuracy": {"interval": 0.02}}}
    (run_folder / "representations.json").write_text(json.dumps(values))
    assert read_contents(run_folder).intervals == {"fewshot5_accuracy": (0.48, 0.52)}


def test_a_page_loads_nothing(full: Path) -> None:
    found = page(full)
    assert found.addresses
    assert all(address.startswith(("data:", "#")) for address in found.addresses)
    assert not any(tag in ("script", "iframe", "object", "embed", "base") for tag, _ in found.tags)
    links = [attributes for tag, attributes in found.tags if tag == "link"]
    assert all(attributes.get("rel") == "icon" for attributes in links)
    assert "{" in found.styles, "the style sheet is inside"
    assert "@import" not in found.styles
    assert all(
        address.strip("\"' ").startswith(("data:", "#")) for address in re.findall(r"url\(([^)]*)", found.styles)
    )
    assert [path.name for path in full.glob("*.html")] == ["report.html"]


def test_pictures_are_inside_byte_for_byte(full: Path) -> None:
    contents = read_contents(full)
    assert contents.figures["samples"].data == (full / "figures" / "samples.png").read_bytes()
    assert (contents.figures["samples"].width, contents.figures["samples"].height) == (8, 6)
    sources = [attributes["src"] for tag, attributes in page(full).tags if tag == "img"]
    assert sources.count(contents.figures["samples"].uri) >= 1
    assert len(sources) == 5 + 3
    assert all(attributes.get("alt") for tag, attributes in page(full).tags if tag == "img")


def test_samples_of_a_long_training_are_shown_in_order_and_few(run_folder: Path) -> None:
    for step in range(100, 2100, 100):
        picture(run_folder / "samples" / f"step-{step}.png")
    steps = [step for step, _ in read_contents(run_folder).progress]
    assert len(steps) == MOST_STEPS
    assert (steps[0], steps[-1]) == (100, 2000)
    assert steps == sorted(steps)
    assert "step 2,000" in page(run_folder).text


def test_names_are_shown_and_not_executed(full: Path) -> None:
    folder = full.with_name("<b>run & co")
    full.rename(folder)
    text = write_report(folder).read_text(encoding="utf-8")
    found = Page(text)
    for name in ("<b>run & co", "recipe demo <b>", "a <fast> machine", "<i>new</i>", "on 100 <test> images", "'a & b'"):
        assert name in found.text, name
        assert name not in text or not re.search("[<&]", name), name
    assert not {"b", "i", "fast", "test"} & {tag for tag, _ in found.tags}


def test_numbers_that_are_not_finite_are_not_drawn(full: Path) -> None:
    found = page(full)
    shapes = [value for _, attributes in found.tags for value in attributes.values() if value]
    assert not any(re.search(r"(?<![\w/+])(nan|inf|NaN|None|null)(?![\w/+])", value[:2000]) for value in shapes)
    assert "Gradient norm" not in found.text, "every value of it is null"
    assert "n/a" in found.text, "the table names what could not be measured"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("recipe.yaml", b"\xff\xfe\x00bad"),
        ("results.json", b"{unclosed"),
        ("results.json", b"[1, 2]"),
        ("codes.json", b'{"counts": [1, -2]}'),
        ("codes.json", b'{"counts": "many"}'),
        ("codes.json", b'{"other": []}'),
        ("metrics.jsonl", b"no json at all\n"),
        ("metrics.jsonl", b'{"loss": 1}\n'),
        ("tokenizer/metrics.jsonl", b"broken\n"),
        ("figures/samples.png", b"this is no picture"),
        ("samples/step-20.png", b""),
    ],
)
def test_what_cannot_be_read_is_left_out_and_named(full: Path, name: str, content: bytes) -> None:
    (full / name).write_bytes(content)
    found = page(full)
    assert "Left out" in found.text
    assert f"{name} could not be read" in found.text
    assert found.text.count("could not be read") == 1, "all the rest is there"


def test_a_truncated_picture_is_noticed(full: Path) -> None:
    path = full / "figures" / "edit.png"
    path.write_bytes(path.read_bytes()[:-40])
    found = page(full)
    assert "figures/edit.png could not be read" in found.text
    assert "edits" not in found.headings


def test_a_recipe_that_is_no_yaml_is_shown_as_text(full: Path) -> None:
    (full / "recipe.yaml").write_text("name: [unclosed")
    assert "name: [unclosed" in page(full).text


@pytest.mark.parametrize(
    ("name", "content", "headings"),
    [
        ("recipe.yaml", "name: x\n", ["run"]),
        ("metrics.jsonl", '{"step": 1, "loss": 2.0}\n', ["training"]),
        ("metrics.jsonl", "", []),
        ("results.json", "{}", []),
        ("results.json", '{"metrics": {"psnr_db": 20}}', ["numbers"]),
        ("results.json", '{"metrics": 3, "timings": [1], "protocol": null}', []),
        ("codes.json", '{"counts": [1, 2]}', ["codebook"]),
    ],
)
def test_one_file_is_enough(run_folder: Path, name: str, content: str, headings: list[str]) -> None:
    (run_folder / name).write_text(content)
    found = page(run_folder)
    assert found.headings == headings
    assert "Left out" not in found.text
    assert "run" in found.text


def test_the_log_of_a_tokenizer_alone_is_called_so(run_folder: Path) -> None:
    (run_folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "psnr_db": 20.0}\n')
    text = page(run_folder).text
    assert "Tokenizer: loss" in text
    assert "Transformer" not in text


def test_a_page_is_written_again_without_reading_itself(full: Path) -> None:
    first = write_report(full).read_bytes()
    assert write_report(full).read_bytes() == first


def test_the_date_of_a_report_is_that_of_the_training_not_of_a_copy_of_its_folder(full: Path) -> None:
    os.utime(full / "recipe.yaml", (2e9, 2e9))
    assert read_contents(full).date == datetime.fromtimestamp(2e9), "nothing else says when"
    for started, date in {"2026-11-28 10:00:00": "28 November 2026", "soon": "May 2033"}.items():
        (full / "run.json").write_text(json.dumps({"started": started}))
        os.utime(full / "recipe.yaml", (2e9, 2e9))
        assert date in page(full).text.replace("\N{NO-BREAK SPACE}", " "), started


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no run folder .*none"):
        write_report(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"is not a run folder: it holds no recipe\.yaml, metrics\.jsonl"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("linear_probe_accuracy", 0.98765, "98.8 %"),
        ("near_copy_share", 0, "0.0 %"),
        ("psnr_db", 21.26, "21.3 dB"),
        ("codebook_perplexity", 123.456, "123.5"),
        ("something", 12345.678, "12,346"),
        ("something", True, "n/a"),
        ("something", None, "n/a"),
        ("something", "text", "n/a"),
        ("psnr_db", math.nan, "n/a"),
        ("psnr_db", -math.inf, "n/a"),
    ],
)
def test_values_have_their_unit(name: str, value: object, text: str) -> None:
    assert format_value(name, value) == text.replace(" ", "\N{NO-BREAK SPACE}")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1, "1"), (1.5, "1.5"), (0.25, "0.25"), (3.14159, "3.142"), (-3.14159, "-3.142"), (100.0, "100"),
        (1000, "1,000"), (9.9999, "10"), (0.00123456, "0.001235"), (0.0001, "0.0001"), (1.5e-5, "1.5e-05"),
        (1234567.0, "1.23e+06"),
    ],
)  # fmt: skip
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (432, "7 min 12 s"),
        (3599.7, "1 h 0 min"), (3 * 3600 + 25 * 60, "3 h 25 min"), (100_000, "27 h 46 min"),
    ],
)  # fmt: skip
def test_durations_are_written_in_two_units(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_distances_are_described_with_their_network_and_number_of_samples() -> None:
    metric = describe("fd_efflite0_5000")
    assert (metric.title, metric.better) == ("Fréchet distance", "lower")
    assert "EfficientNet-Lite0" in metric.explanation
    assert "5000 samples" in metric.explanation
    real = describe("fd_efflite0_5000_real")
    assert real.title == "Fréchet distance, real images"
    restored, by_class = describe("fd_efflite0_5000_restored"), describe("fd_efflite0_test5k_classes")
    assert (restored.title, restored.better) == ("Fréchet distance, reconstructions", "")
    assert (by_class.title, by_class.better) == ("Fréchet distance, by class", "lower")
    assert "test5k" in by_class.explanation
    assert is_distance("fd_efflite0_5000")
    assert not is_distance("fd_efflite0_5000_real"), "what it is held against is no headline"
    assert not is_distance("near_copy_share")


def test_every_metric_of_generated_images_is_described() -> None:
    for name, title, form in (
        ("kd_efflite0_test10k", "Kernel distance", "number"),
        ("is_inception_val50k", "Inception Score", "number"),
        ("precision_timm-resnet50_test500", "Precision", "share"),
        ("coverage_efflite0_my_photos500", "Coverage", "share"),
    ):
        metric = describe(name)
        assert (metric.title, metric.form) == (title, form)
        assert name.split("_", 2)[2] in metric.explanation
    assert describe("recall_inception_val50k_real").title == "Recall, real images"


def test_an_unknown_metric_is_called_by_its_name() -> None:
    assert describe("my_number").title == "my_number"
    assert describe("my_number").explanation == ""
    assert describe("psnr_db") is PixelFidelity.metrics["psnr_db"], "evaluators describe their own numbers"


def test_only_numbers_are_finite() -> None:
    assert finite(3) == 3.0
    assert isinstance(finite(3), float)
    assert [finite(value) for value in (True, None, "3", math.nan, math.inf, [1])] == [None] * 6


def test_measures_of_generated_images_are_shown(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: smoke\n")
    measured = {"metrics": {"kd_efflite0_test500": 0.0125}, "protocols": {"kd_efflite0_test500": "3 subsets of 20"}}
    (tmp_path / "generation.json").write_text(json.dumps(measured))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Kernel distance" in text
    assert "0.0125" in text
    assert "3 subsets of 20" in text
