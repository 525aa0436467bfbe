"""`mage knn`: nearest-neighbour accuracy of a model's features."""

from mage.cli.console import emit, skipped_sentence
from mage.cli.options.knn import Options
from mage.cli.probe import train_and_test_features
from mage.evaluation.confusion import wilson_interval, with_interval
from mage.evaluation.knn import knn


def run(options: Options) -> None:
    """Measure and print."""
    if not options.neighbours or options.temperature <= 0:
        raise ValueError(
            f"--neighbours needs at least one number and --temperature must be positive, not {options.temperature}"
        )
    train, test, skipped, cut = train_and_test_features(options)
    result = knn(train, test, neighbours=options.neighbours, temperature=options.temperature, seed=options.seed)
    count = len(test.labels)
    right = round(result.accuracy * count)
    values = {
        "knn_accuracy": result.accuracy,
        "interval": list(wilson_interval(right, count)),
        "k": result.k,
        "accuracy_per_k": result.accuracy_per_k,
        "protocol": f"weighted cosine, temperature {result.temperature:g}, {options.pool}, {cut}",
        "train_images": len(train.labels),
        "test_images": count,
        "skipped": skipped,
    }
    emit(
        options,
        values,
        f"{result.k}-NN ({values['protocol']}): {with_interval(right, count)} of {count:,} test images"
        f"{skipped_sentence(skipped)}",
    )
