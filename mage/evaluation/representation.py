"""Input of the protocols for representations: a model, labelled images, and features shared by all protocols.

A new protocol is a subclass of RepresentationProtocol registered in REPRESENTATION_PROTOCOLS; `mage evaluate
representations` runs it with the others, and reports describe its numbers.

Letters: n images, c channels, h w pixels, k classes.
"""

from functools import cached_property
from typing import ClassVar

from mage.data.datasets import ImageDataset
from mage.data.transforms import TransformConfig, cut_in_words
from mage.evaluation.classification import Scorer
from mage.evaluation.features import Features, check_pair, extract_features, labels_of
from mage.evaluation.image_classifier import fine_tuned_cut
from mage.evaluation.linear_head import FittedHead, LinearHead, fit_head
from mage.evaluation.metric import Evaluator
from mage.models import Classifier
from mage.models.pooling import Pool
from mage.pipeline import Mage
from mage.registry import Registry


class Representation:
    """A model and labelled images. Features and the classifier on them are computed once, on first access."""

    def __init__(
        self,
        model: Mage,
        train: ImageDataset,
        test: ImageDataset,
        *,
        pool: Pool = "mean",
        batch_size: int = 256,
        seed: int = 0,
        transform: TransformConfig | None = None,
    ) -> None:
        """pool: mean of the tokens, class token, both, or both of each of the last four blocks.

        transform: of the images; default: centre crops, for a fine-tuned classifier those that it was tested on.

        Raises NoClasses for images without labels, and ValueError for a classifier of other classes than the images'.
        """
        for dataset in (train, test):
            labels_of(dataset)
        self.model, self.train_images, self.test_images = model, train, test
        self.pool, self.batch_size, self.seed = pool, batch_size, seed
        if isinstance(model.transformer, Classifier):
            _check_classes(model.class_names, train, test)
            transform = transform or fine_tuned_cut(model)
        self.transform = transform or TransformConfig(size=model.image_size)

    @cached_property
    def _features(self) -> tuple[Features, Features]:
        train, test = (self.features_of(dataset) for dataset in (self.train_images, self.test_images))
        check_pair(train, test)
        return train, test

    @property
    def train(self) -> Features:
        """Features of the training images. Raises ValueError for a model without features."""
        return self._features[0]

    @property
    def test(self) -> Features:
        """Features of the test images."""
        return self._features[1]

    def features_of(self, dataset: ImageDataset) -> Features:
        """Features of another data set with the same settings. Raises ValueError for images without labels."""
        return extract_features(self.model, dataset, self.transform, pool=self.pool, batch_size=self.batch_size)

    @cached_property
    def fitted(self) -> FittedHead:
        """Logistic regression on the features of the training images."""
        return fit_head(self.train, seed=self.seed)

    @cached_property
    def head(self) -> LinearHead | None:
        """Classifier on the model's features; None if the model is itself a classifier."""
        return None if isinstance(self.model.transformer, Classifier) else self.fitted.head

    @property
    def classifier(self) -> Scorer:
        """Images (n, c, h, w) in [0, 1] -> class scores (n, k), without gradients."""
        if (head := self.head) is None:
            return self.model.classify
        return lambda pixels: head(self.model.features(pixels, self.pool).cpu())

    @property
    def classifier_name(self) -> str:
        """Name of the classifier for the protocols of metrics."""
        if self.head is None:
            return f"fine-tuned classifier, {cut_in_words(self.transform)}"
        return f"logistic regression on frozen {self.pool} features"


def _check_classes(names: tuple[str, ...], *datasets: ImageDataset) -> None:
    """Raise ValueError if a classifier numbers other classes than these images."""
    for dataset in datasets:
        there = tuple(dataset.class_names)
        if names and there and names != there:
            raise ValueError(
                f"the classes of {dataset.name} ({_some(there)}) are not those of the classifier ({_some(names)}), "
                "so that their numbers mean something else: `mage predict` compares names"
            )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


class RepresentationProtocol(Evaluator[Representation]):
    """A protocol. Its settings are the fields of its class, all with defaults."""

    uses_features: ClassVar[bool] = True
    """Whether it uses the features of all images, which are then computed (and timed) before it starts."""


REPRESENTATION_PROTOCOLS: Registry[type[RepresentationProtocol]] = Registry(
    kind="protocol", group="mage.representation_protocols"
)
