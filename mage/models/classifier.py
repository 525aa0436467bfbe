"""A MAGE encoder with a classifier on top: what linear probing and fine-tuning leave behind (paper, section 4.3).

Letters: n images, l tokens, d width, k classes.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mage.models.mage import MAGEConfig, MAGEEncoder, Pool, rows_of_tokens
from mage.nn.blocks import choose_attention, xavier_linears
from mage.vocabulary import Vocabulary

HeadKind = Literal["linear", "batchnorm_linear"]


class MAGEClassifier(nn.Module):
    """Token ids -> class scores. A linear probe has `head_kind="batchnorm_linear"`, a fine-tuned model `"linear"`."""

    def __init__(
        self,
        config: MAGEConfig,
        vocabulary: Vocabulary,
        grid: tuple[int, int],
        *,
        num_classes: int,
        pool: Pool = "mean",
        head_kind: HeadKind = "linear",
    ) -> None:
        super().__init__()
        if pool == "both":
            raise ValueError('a classifier pools by "mean" or "class"')
        self.config, self.vocabulary, self.grid = config, vocabulary, grid
        self.num_classes, self.pool, self.head_kind = num_classes, pool, head_kind
        self.encoder = MAGEEncoder(config, vocabulary, grid, final_norm=pool == "class")
        self.feature_norm = nn.LayerNorm(config.width, eps=1e-6) if pool == "mean" else None
        self.head_norm = (
            nn.BatchNorm1d(config.width, affine=False, eps=1e-6) if head_kind == "batchnorm_linear" else None
        )
        self.head = nn.Linear(config.width, num_classes)
        xavier_linears(self.encoder)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)
        choose_attention(self, self.head.weight.device)

    def features(self, ids: Int[Tensor, "..."], pool: Pool | None = None) -> Float[Tensor, "n d"]:
        """What the head sees. Raises ValueError for another pooling than the one it was trained with."""
        if pool is not None and pool != self.pool:
            raise ValueError(f"this classifier was trained on pool={self.pool!r}, not {pool!r}")
        x = self.encoder(rows_of_tokens(ids, self.grid))
        if self.feature_norm is not None:
            return self.feature_norm(x[:, 1:].float().mean(dim=1)).float()  # type: ignore[no-any-return]
        assert self.encoder.norm is not None
        return self.encoder.norm(x)[:, 0].float()  # type: ignore[no-any-return]

    def forward(self, ids: Int[Tensor, "..."]) -> Float[Tensor, "n k"]:
        """Class scores of token grids."""
        features = self.features(ids)
        if self.head_norm is not None:
            with torch.autocast(features.device.type, enabled=False):
                features = self.head_norm(features)
        return self.head(features).float()  # type: ignore[no-any-return]
