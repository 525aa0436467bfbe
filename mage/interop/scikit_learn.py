"""Features of images as a transformer of scikit-learn, for pipelines, grids of settings and cross-validation.

Letters: n images, h w pixels, c channels, p = h w c, f feature width.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from mage.models.pooling import Pool
from mage.pipeline import Mage, load


class MageFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Images -> features (n, f) of a frozen model; `fit` learns nothing, it loads the model.

    Images are arrays (n, h, w) or (n, h, w, c) of uint8 or of floats in [0, 1], or lists of paths, PIL images or
    arrays; those of another size are scaled to cover the model's and cropped. With `image_shape` they may be rows
    (n, p), as most of scikit-learn's functions require.

    Example:
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> classifier = make_pipeline(MageFeatures("digits"), LogisticRegression())
    """

    def __init__(
        self,
        model: str | Path | Mage = "digits",
        *,
        pool: Pool = "mean",
        image_shape: tuple[int, ...] | None = None,
        batch_size: int = 64,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        """model: packaged name, folder, or a loaded model. pool: "mean", "class", "both" or "last4".

        image_shape: (h, w) or (h, w, c) of images that are given as rows. batch_size: images at a time. device,
        precision: as of `mage.load`; a loaded model keeps its own.
        """
        self.model = model
        self.pool = pool
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.device = device
        self.precision = precision

    def fit(self, X: Any, y: Any = None) -> "MageFeatures":
        """Load the model, and compute one image, so that wrong settings and images are told here."""
        images = self._images(X, reset=True)
        given = self.model
        self.model_ = given if isinstance(given, Mage) else load(given, precision=self.precision, device=self.device)
        self._n_features_out = self._features(images[:1]).shape[1]
        return self

    def transform(self, X: Any) -> Any:
        """Features, float32 (n, f)."""
        check_is_fitted(self, "model_")
        images = self._images(X, reset=False)
        starts = range(0, len(images), self.batch_size)
        return np.concatenate([self._features(images[start : start + self.batch_size]) for start in starts])

    def _features(self, images: Any) -> Any:
        features = self.model_.features(list(images), self.pool, batch_size=self.batch_size)
        return features.float().cpu().numpy()

    def _images(self, X: Any, *, reset: bool) -> Any:
        """The images one by one; rows of numbers are checked as scikit-learn does."""
        if isinstance(X, str | os.PathLike):
            raise ValueError(f"give a list of images or paths, not one path: {X}")
        if self.image_shape is not None:
            rows = validate_data(self, X, reset=reset, dtype=(np.float32, np.float64, np.uint8))
            if rows.shape[1] != np.prod(self.image_shape):
                raise ValueError(
                    f"X has rows of {rows.shape[1]} numbers, which are no images of shape {self.image_shape}"
                )
            return rows.reshape(len(rows), *self.image_shape)
        if hasattr(X, "ndim") and X.ndim == 2:
            raise ValueError(
                f"X is two-dimensional, {tuple(X.shape)}: give images (n, h, w) or (n, h, w, c), or say with "
                "image_shape=(h, w) what the rows are"
            )
        images = X if isinstance(X, np.ndarray) else list(X)
        if not len(images):
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required: there are no images")
        return images

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
