"""`mage transfer`: probes of one or several models on several data sets."""

import mage
from mage.cli.console import emit, note
from mage.cli.options.transfer import Options
from mage.data.datasets import load_dataset
from mage.evaluation.suite import SuiteConfig, measure_representation


def run(options: Options) -> None:
    """Measure and print a table."""
    if not options.model or not options.data:
        raise ValueError("give at least one --model and one --data")
    config = SuiteConfig(parts=("linear", "knn"), pool=options.pool, protocol=options.protocol, seed=options.seed)
    results = []
    for path in options.model:
        model = mage.load(path, precision=options.precision, device=options.device)
        for name in options.data:
            note(options, f"{path} on {name} ...")
            train, test = (
                load_dataset(name, split=split, data_root=options.data_root, channels=model.channels)
                for split in ("train", "test")
            )
            report = measure_representation(model, train, test, config)
            results.append({"model": str(path), "data": name, "metrics": report.metrics, "protocol": report.protocol})
    names, width = [str(path) for path in options.model], max(map(len, options.data))
    lines = []
    for metric in ("linear_probe_accuracy", "knn_accuracy"):
        lines.append(f"{metric:{width + 24}}" + "  ".join(f"{name:>14}" for name in names))
        for data in options.data:
            cells = [result["metrics"][metric] for result in results if result["data"] == data]  # type: ignore[index]
            lines.append(f"  {data:{width + 22}}" + "  ".join(f"{cell:>14.2%}" for cell in cells))
    emit(options, {"results": results}, "\n".join(lines))
