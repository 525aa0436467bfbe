"""`mage knn`: nearest-neighbour accuracy of a model's features."""

from mage.cli.console import emit, skipped_sentence
from mage.cli.options.knn import Options
from mage.cli.probe import train_and_test_features
from mage.evaluation.knn import knn


def run(options: Options) -> None:
    """Measure and print."""
    if not options.neighbours or options.temperature <= 0:
        raise ValueError(
            f"--neighbours needs at least one number and --temperature must be positive, not {options.temperature}"
        )
    train, test, skipped = train_and_test_features(options)
    result = knn(train, test, neighbours=options.neighbours, temperature=options.temperature, seed=options.seed)
    values = {
        "knn_accuracy": result.accuracy,
        "k": result.k,
        "accuracy_per_k": result.accuracy_per_k,
        "protocol": f"weighted cosine, temperature {result.temperature:g}, {options.pool}",
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "skipped": skipped,
    }
    emit(
        options,
        values,
        f"{result.k}-NN ({values['protocol']}): {result.accuracy:.2%} of {len(test.labels):,} test images"
        f"{skipped_sentence(skipped)}",
    )
