"""Training on 1 to 256 GPUs, computed: `python studies/scaling.py` writes results/scaling.json and .svg.

Nothing is measured here: `mage.runs.scaling` computes ViT-B, -L and -H on ImageNet (1,600 epochs, batch 4,096, cached
tokens), at the share of the peak that one GPU reached, on H100s and on RTX 4090s with a slow network. At most IMAGES,
which fit into the memory, are in a pass; a device with more of the batch computes it in parts. efficiency: speed over
that of one device, divided by their number.
"""

import argparse
import re
import time
from dataclasses import replace
from pathlib import Path

from mage.models.presets import PRESETS
from mage.recipes import named
from mage.report.charts import Series, line_chart, standalone
from mage.runs.hardware import MEASURED_SHARE
from mage.runs.record import Record, write_record
from mage.runs.scaling import Cost, training_cost

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"base": "ViT-B", "large": "ViT-L", "huge": "ViT-H"}
LINES = (("base", "h100"), ("large", "h100"), ("huge", "h100"), ("base", "rtx4090"), ("large", "rtx4090"))
DEVICES = tuple(2**power for power in range(9))
IMAGES = {"h100": 64, "rtx4090": 32}
IMAGENET = 1_281_167
TITLE = "Percent of linear speed-up (computed, not measured)"


def cost(size: str, device: str, devices: int) -> Cost:
    """Cost of one size on so many devices."""
    recipe = named("imagenet-base")
    parts = max(1, recipe.pretraining.batch_size // (devices * IMAGES[device]))
    optim = replace(recipe.pretraining, accumulation=parts)
    return training_cost(replace(recipe, model=PRESETS[size], pretraining=optim), IMAGENET, device, devices=devices)


def chart(metrics: dict[str, float]) -> str:
    """Efficiency by number of devices, one line per size."""
    lines = []
    for size, device in LINES:
        form = re.compile(rf"efficiency_{size}_{device}_(\d+)")
        points = [(int(match[1]), 100 * metrics[match[0]]) for match in filter(None, map(form.fullmatch, metrics))]
        lines.append(Series(f"{SIZES[size]}, {device}", sorted(points), markers=True))
    return line_chart(lines, title=TITLE, x_label="devices", width=760, height=320)


def main() -> None:
    """Compute, record and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the files")
    options = parser.parse_args()
    start, metrics = time.perf_counter(), {}
    for size, device in LINES:
        costs = {devices: cost(size, device, devices) for devices in DEVICES}
        for devices, one in costs.items():
            metrics[f"hours_{size}_{device}_{devices}"] = one.seconds / 3600
            metrics[f"device_days_{size}_{device}_{devices}"] = one.device_days
            metrics[f"memory_gb_{size}_{device}_{devices}"] = one.memory_bytes / 1e9
            metrics[f"efficiency_{size}_{device}_{devices}"] = costs[1].device_days / one.device_days
    protocol = {
        "kind": "computed from published peaks by mage.runs.scaling, not measured",
        "share": f"{MEASURED_SHARE} of the peak, as measured on one H200 (results/speed_gpu.json)",
    }
    record = Record("python studies/scaling.py", 0, protocol, {"total": time.perf_counter() - start}, metrics)
    write_record(options.results / "scaling.json", record)
    (options.results / "scaling.svg").write_text(standalone(chart(metrics)))


if __name__ == "__main__":
    main()
