"""Comparison of runs, and the part of a page that `mage evaluate representations` fills."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mage import images
from mage.report import write_report
from mage.report.comparison import run_names, write_comparison
from mage.report.curves import measured_curves
from tests.report.test_report import Page


def found(shift: float) -> dict[str, Any]:
    """As the command writes it: severities are text."""
    return {
        "metrics": {
            "linear_probe_accuracy": 0.5 + shift,
            "knn_accuracy": 0.4 - shift,
            "fewshot1_accuracy": 0.2,
            "fewshot5_accuracy": 0.3 + shift,
            "corruption_accuracy": 0.35,
            "corruption_clean_accuracy": 0.5 + shift,
            "pgd_linf_2_accuracy": 0.1 + shift,
            "pgd_l2_0.25_accuracy": 0.2,
        },
        "protocols": {"linear_probe_accuracy": "lbfgs mean, fixed centre crops"},
        "details": {
            "fewshot1_accuracy": {"per_class": 1, "interval": 0.01, "draws": [0.2]},
            "fewshot5_accuracy": {"per_class": 5, "interval": 0.01, "draws": [0.3 + shift]},
            "corruption_accuracy": {
                "accuracy": {"fog": {"1": 0.4, "5": 0.2 + shift}, "jpeg": {"1": 0.45, "5": 0.4}},
                "per_kind": {"fog": 0.3 + shift, "jpeg": 0.425},
            },
            "pgd_linf_2_accuracy": {"norm": "linf", "budget": 2 / 255, "clean": 0.5},
            "pgd_l2_0.25_accuracy": {"norm": "l2", "budget": 0.25, "clean": 0.5},
        },
    }


def run_folder(root: Path, name: str, shift: float) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "representations.json").write_text(json.dumps(found(shift)))
    lines = [{"step": step, "loss": 3.0 / step, "online/linear": 0.1 * step, "valid/loss": 2.0} for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    images.save_png(folder / "figures" / "samples.png", torch.rand(3, 16, 16))
    return folder


def test_one_page_per_model_shows_all_of_it(tmp_path: Path) -> None:
    page = Page(write_report(run_folder(tmp_path, "mage", 0.1)).read_text())
    for text in ("Linear probe", "60.0", "Few labels", "Corruptions, by severity", "fog", "Attacks (PGD)",
                 "5 per class",
                 "PGD l∞ 2", "lbfgs mean, fixed centre crops"):  # fmt: skip
        assert text in page.text, text
    assert page.addresses == [address for address in page.addresses if address.startswith(("data:", "#"))]


def test_results_and_representations_stand_together(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "mage", 0.0)
    (folder / "results.json").write_text(json.dumps({"metrics": {"psnr_db": 25.0}, "protocol": {"psnr_db": "test"}}))
    text = Page(write_report(folder).read_text()).text
    assert "25.0" in text
    assert "Linear probe" in text


def test_comparison_names_the_best_of_each_line(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path, name, shift) for name, shift in (("mage", 0.1), ("mae", 0.0))]
    text = write_comparison(runs, tmp_path / "comparison.html").read_text()
    page = Page(text)
    for word in ("2 runs", "mage", "mae", "Few labels", "Corruptions, by kind", "Online linear probe", "Samples"):
        assert word in page.text, word
    row = text[text.index('">Linear probe</th>') :].split("</tr>")[0]
    assert row.index('value best">60.0') < row.index('value">50.0')
    row = text[text.index('">k-NN</th>') :].split("</tr>")[0]
    assert row.index('value">30.0') < row.index('value best">40.0')
    assert page.addresses == [address for address in page.addresses if address.startswith(("data:", "#"))]


def test_names_are_the_shortest_that_differ(tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert run_names(folders) == ["a/run", "b/run"]
    with pytest.raises(ValueError, match="named twice"):
        run_names([folders[0], folders[0]])
    with pytest.raises(ValueError, match="at least two"):
        write_comparison(folders[:1], tmp_path / "x.html")


def test_nonsense_in_the_file_is_left_out() -> None:
    for values in (
        {},
        {
            "metrics": {"fewshot1_accuracy": 0.5, "pgd_linf_2_accuracy": 0.1},
            "details": {
                "pgd_linf_2_accuracy": 3,
                "fewshot1_accuracy": {"per_class": "x"},
                "corruption_accuracy": {"accuracy": {"fog": [1], "snow": {"high": 0.5}}},
            },
        },
    ):
        assert measured_curves({"run": values}) == ""
