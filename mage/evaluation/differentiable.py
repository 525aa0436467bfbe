"""A model as a differentiable function from pixels to class scores, including its tokenizer.

The forward pass is the model's own: each position takes its nearest code. The backward pass treats this choice as a
softmax over affinities (straight through, Bengio et al. 2013; as an attack, Athalye et al. 2018). The temperature of
each position is proportional to the difference between its best and its mean affinity, so that it fits any codebook.

Letters: n images, c channels, H W pixels, h w tokens, l = h w, d code width, k codes, m classes.
"""

import copy
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mage.evaluation.classification import Scorer
from mage.evaluation.linear_head import LinearHead
from mage.models import Classifier, MAGEClassifier, MAGETransformer, PatchEncoder
from mage.models.pooling import Pool, features_of
from mage.pipeline import Mage
from mage.tokenizers.quantizers.base import rows

SHARPNESS = 0.1
"""Temperature of the softmax, over the difference between the best and the mean affinity."""


@runtime_checkable
class DifferentiableTokenizer(Protocol):
    """Methods that a tokenizer needs for gradients."""

    def latent(self, images: Tensor) -> Tensor:
        """Images -> vectors (n, d, h, w) before quantization."""

    def affinity(self, vectors: Tensor) -> Tensor:
        """Vectors (n l, d) -> affinity to each code (n l, k), larger for nearer ones."""


def token_shares(tokenizer: DifferentiableTokenizer, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n l k"]:
    """One-hot vectors of the tokens, with the gradient of a softmax."""
    latent = tokenizer.latent(images).float()
    affinity = tokenizer.affinity(rows(latent)).unflatten(0, (len(images), -1))
    best = affinity.amax(dim=2, keepdim=True)
    temperature = (SHARPNESS * (best - affinity.mean(dim=2, keepdim=True))).detach().clamp(min=1e-8)
    soft = ((affinity - best.detach()) / temperature).softmax(dim=2)
    hard = functional.one_hot(affinity.argmax(dim=2), affinity.shape[2]).to(soft)
    shares: Tensor = hard + soft - soft.detach()
    return shares


def differentiable_scorer(model: Mage, head: LinearHead | None = None, *, pool: Pool = "mean") -> Scorer:
    """Images in [0, 1] -> class scores (n, m), with gradients to the images.

    head: a linear classifier on the model's features; None: the model is itself a classifier.
    Raises ValueError for a model without classifier, or a tokenizer without latent and affinity.
    """
    transformer = model.require_transformer()
    own_head = None if head is None else copy.deepcopy(head).to(model.device)
    if head is None and not isinstance(transformer, Classifier):
        raise ValueError("this model has no classifier: give a head, or fine-tune the model")
    if isinstance(transformer, MAGETransformer | MAGEClassifier):
        tokenizer = _tokenizer(model)
        encoder: Any = transformer.encoder  # modules of modules have no types

        def embed(images: Tensor) -> Tensor:
            mixed: Tensor = encoder.embed_mixed(token_shares(tokenizer, images))
            return mixed
    else:
        encoder = transformer if isinstance(transformer, PatchEncoder) else transformer.encoder
        embed = encoder.embed

    def score(images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n m"]:
        with model.autocast():
            x = embed(images.to(model.device))
            if isinstance(transformer, Classifier):
                for block in encoder.blocks:
                    x = block(x)
                features = transformer.pooled(x)
            else:
                features = features_of(x, encoder.blocks, pool, encoder.norm)
            if own_head is not None:
                scores: Tensor = own_head(features)
                return scores
            assert isinstance(transformer, Classifier)
            return transformer.score(features)

    return score


def latent_of(model: Mage) -> Callable[[Tensor], Tensor] | None:
    """The function from images to the tokenizer's latent; None for a model on pixels."""
    if not isinstance(model.transformer, MAGETransformer | MAGEClassifier):
        return None
    return _tokenizer(model).latent


def _tokenizer(model: Mage) -> DifferentiableTokenizer:
    if not isinstance(model.tokenizer, DifferentiableTokenizer):
        raise ValueError(
            f"no gradient can pass a {type(model.tokenizer).__name__}: it needs the methods latent and affinity"
        )
    return model.tokenizer
