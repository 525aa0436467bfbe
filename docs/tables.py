"""Write the tables of README and docs from results/*.json: `python docs/tables.py`, or `--check` to only compare.

A table stands between `<!-- table NAME -->` and `<!-- end -->`; nobody edits what is between them.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TITLES = {
    "psnr_db": ("tokenizer PSNR", "{:.1f} dB"),
    "codes_used": ("codes in use", "{:.1%}"),
    "codebook_perplexity": ("codebook perplexity", "{:.0f}"),
    "linear_probe_accuracy": ("linear probe, L-BFGS", "{:.1%}"),
    "linear_probe_lars_accuracy": ("linear probe, LARS, 90 epochs", "{:.1%}"),
    "knn_accuracy": ("k-NN", "{:.1%}"),
    "raw_pixel_accuracy": ("logistic regression on raw pixels", "{:.1%}"),
    "sample_confident_share": ("samples that a classifier is > 0.8 sure of", "{:.1%}"),
    "real_confident_share": ("real test images that it is > 0.8 sure of", "{:.1%}"),
    "class_share_min": ("rarest class among the samples", "{:.1%}"),
    "near_copy_share": ("samples closer to a training image than 99 % of test images are", "{:.1%}"),
    "fd_efflite0_1k": ("fd_efflite0 of 1,000 samples", "{:.0f}"),
    "fd_efflite0_1k_real": ("fd_efflite0 of 1,000 real training images", "{:.0f}"),
    "pretrain_valid_loss": ("MAGE's loss on held-out images", "{:.3f}"),
}


def table(name: str) -> str:
    """One record as a Markdown table, with what it takes to repeat it."""
    path = ROOT / "results" / f"{name}.json"
    if not path.is_file():
        return f"Not measured yet: `results/{name}.json` is missing."
    record = json.loads(path.read_text())
    rows = ["| measure | value |", "|---|---|"]
    for metric, (title, form) in TITLES.items():
        if metric in record["metrics"]:
            rows.append(f"| {title} | {form.format(record['metrics'][metric])} |")
    about = (
        f"`{record['command']}`, seed {record['seed']}, commit {record['commit']}, {record['seconds'] / 60:.1f} "
        f"minutes on {record['machine']}; from `results/{name}.json`, which also states the protocols."
    )
    return "\n".join([*rows, "", about])


def filled(text: str) -> str:
    """A page with all its tables written anew."""
    form = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.S)
    return form.sub(lambda match: f"{match[1]}\n{table(match[2])}\n\n{match[3]}", text)


def main() -> None:
    """Write the tables, or with --check fail if one is out of date."""
    for page in PAGES:
        if not page.is_file():
            continue
        text = page.read_text()
        new = filled(text)
        if new != text and "--check" in sys.argv:
            raise SystemExit(f"{page.relative_to(ROOT)} is out of date: run `python docs/tables.py`")
        page.write_text(new)


if __name__ == "__main__":
    main()
