"""An encoder with a classifier on top: the result of linear probing and fine-tuning (paper, section 4.3).

Letters: n images, l tokens, d width, k classes.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mage.models.mage import MAGEConfig, MAGEEncoder, rows_of_tokens
from mage.models.pixels import PatchEncoder, PatchEncoderConfig
from mage.models.pooling import Pool
from mage.nn.blocks import choose_attention, xavier_linears
from mage.vocabulary import Vocabulary

HeadKind = Literal["linear", "batchnorm_linear"]


class Classifier(nn.Module):
    """Encoder input -> class scores. A linear probe has `head_kind="batchnorm_linear"`, a fine-tuned model `"linear"`.

    encoder: input -> (n, 1 + l, d), class position first, before its `norm`, which the class token passes.
    """

    def __init__(self, encoder: nn.Module, width: int, num_classes: int, pool: Pool, head_kind: HeadKind) -> None:
        super().__init__()
        if pool not in ("mean", "class"):
            raise ValueError('a classifier pools by "mean" or "class"')
        self.num_classes, self.pool, self.head_kind = num_classes, pool, head_kind
        self.encoder = encoder
        self.feature_norm = nn.LayerNorm(width, eps=1e-6) if pool == "mean" else None
        self.head_norm = nn.BatchNorm1d(width, affine=False, eps=1e-6) if head_kind == "batchnorm_linear" else None
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)
        choose_attention(self, self.head.weight.device)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters form a layer, in timm's manner, for layer decay: embedding, each block, the rest.

        The rest is a layer above the last block, as in BEiT and MAE; timm's own models put it into the last block.
        """
        return {
            "stem": r"^encoder\.(?:embedding|patches|class_token|position)",
            "blocks": [(r"^encoder\.blocks\.(\d+)", None), (r"^(?:encoder\.norm|feature_norm|head)", (9999,))],
        }

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay although they are not vectors, as in the public code of each method.

        MAE excludes class token and positions. MAGE's positions are an embedding and decay like the words.
        """
        return {"encoder.class_token", "encoder.position"}

    def prepare(self, inputs: Tensor) -> Tensor:
        """The encoder's input for the caller's."""
        return inputs

    def features(self, inputs: Tensor, pool: Pool | None = None) -> Float[Tensor, "n d"]:
        """The head's input. Raises ValueError for another pooling than the one it was trained with."""
        if pool is not None and pool != self.pool:
            raise ValueError(f"this classifier was trained on pool={self.pool!r}, not {pool!r}")
        return self.pooled(self.encoder(self.prepare(inputs)))

    def pooled(self, x: Float[Tensor, "n l1 d"]) -> Float[Tensor, "n d"]:
        """The encoder's output, pooled for the head."""
        if self.feature_norm is not None:
            mean: Tensor = self.feature_norm(x[:, 1:].float().mean(dim=1)).float()
            return mean
        norm = self.encoder.norm
        assert isinstance(norm, nn.LayerNorm)
        first: Tensor = norm(x)[:, 0].float()
        return first

    def forward(self, inputs: Tensor) -> Float[Tensor, "n k"]:
        """Class scores."""
        return self.score(self.features(inputs))

    def score(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Class scores of features."""
        if self.head_norm is not None:
            with torch.autocast(features.device.type, enabled=False):
                features = self.head_norm(features)
        scores: Tensor = self.head(features).float()
        return scores


class MAGEClassifier(Classifier):
    """Token ids -> class scores."""

    def __init__(
        self,
        config: MAGEConfig,
        vocabulary: Vocabulary,
        grid: tuple[int, ...],
        *,
        num_classes: int,
        pool: Pool = "mean",
        head_kind: HeadKind = "linear",
        drop_path: float = 0.0,
        embedding_dropout: float | None = None,
    ) -> None:
        encoder = MAGEEncoder(
            config,
            vocabulary,
            grid,
            final_norm=pool == "class",
            drop_path=drop_path,
            embedding_dropout=embedding_dropout,
        )
        xavier_linears(encoder)
        super().__init__(encoder, config.width, num_classes, pool, head_kind)
        self.config, self.vocabulary, self.grid = config, vocabulary, encoder.grid

    def prepare(self, inputs: Int[Tensor, "..."]) -> Int[Tensor, "n l"]:
        """Token grids as rows."""
        return rows_of_tokens(inputs, self.grid)


class PatchClassifier(Classifier):
    """Images -> class scores, for the encoders of MAE and SimCLR."""

    def __init__(
        self,
        config: PatchEncoderConfig,
        *,
        num_classes: int,
        pool: Pool = "mean",
        head_kind: HeadKind = "linear",
        drop_path: float = 0.0,
    ) -> None:
        encoder = PatchEncoder(config, final_norm=pool == "class", drop_path=drop_path)
        super().__init__(encoder, config.width, num_classes, pool, head_kind)
        self.config = config

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of patches."""
        return self.config.grid
