"""`mage transfer`: probes of one or several models on several data sets."""

from typing import Any

import torch

import mage
from mage.cli.console import emit, note
from mage.cli.options.transfer import Options
from mage.data.datasets import train_and_test
from mage.evaluation.representation import Representation
from mage.evaluation.suite import build_protocols, measure_representation


def run(options: Options) -> None:
    """Measure and print a table."""
    if not options.model or not options.data:
        raise ValueError("give at least one --model and one --data")
    protocols = build_protocols(("linear", "knn"), {"linear": {"training": options.protocol}})
    for path in options.model:  # before an hour with the first one
        model = mage.load(path, precision=options.precision, device=options.device)
        model.features(torch.zeros(1, model.channels, *model.image_size), options.pool)
    results: list[dict[str, Any]] = []
    for path in options.model:
        model = mage.load(path, precision=options.precision, device=options.device)
        for name in options.data:
            note(options, f"{path} on {name} ...")
            train, test = train_and_test(name, data_root=options.data_root, channels=model.channels)
            subject = Representation(model, train, test, pool=options.pool, seed=options.seed)
            measured = measure_representation(subject, protocols)
            values = {"metrics": measured.metrics, "protocols": measured.protocols}
            results.append({"model": str(path), "data": name, **values})
    names, width = [str(path) for path in options.model], max(map(len, options.data))
    lines = []
    for metric in (name for name in results[0]["metrics"] if "top5" not in name):
        lines.append(f"{metric:{width + 24}}" + "  ".join(f"{name:>14}" for name in names))
        for data in options.data:
            cells = [result["metrics"][metric] for result in results if result["data"] == data]
            lines.append(f"  {data:{width + 22}}" + "  ".join(f"{cell:>14.2%}" for cell in cells))
    emit(options, {"results": results}, "\n".join(lines))
