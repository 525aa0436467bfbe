"""`mage knn`: nearest-neighbour accuracy of a model's features."""

from dataclasses import dataclass

from mage.cli.options import emit, skipped_sentence
from mage.cli.probe import FeatureOptions, train_and_test_features
from mage.evaluation.knn import NEIGHBOURS, knn


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """Classify test images by their nearest training images."""

    neighbours: tuple[int, ...] = NEIGHBOURS
    """numbers of neighbours to try; the best is chosen on held-out training images"""
    temperature: float = 0.07
    """each neighbour counts exp(similarity / temperature)"""


def run(options: Options) -> None:
    """Measure and print."""
    if not options.neighbours or min(options.neighbours) < 1 or options.temperature <= 0:
        raise ValueError("--neighbours and --temperature must be positive")
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
