"""A model's encoder with timm's interface: features, maps of blocks, a head to replace, groups of parameters.

Images come in as timm's transforms make them, normalised by the mean and standard deviation of `pretrained_cfg`; a
frozen tokenizer turns them into tokens, or the encoder reads them itself (MAE, SimCLR). No gradient reaches the images
of a model with a tokenizer.

Letters: n images, c channels, H W pixels, l1 tokens with the class position first, d width, k classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from timm.layers import DropPath
from timm.models import checkpoint_seq
from torch import Tensor, nn

from mage import images as pixels
from mage.models import Classifier, PatchClassifier, PatchEncoder
from mage.models.intermediates import block_numbers
from mage.models.mage import MAGEEncoder
from mage.nn.blocks import choose_attention
from mage.pipeline import Mage

GlobalPool = Literal["avg", "token", ""]
"""avg: mean over the tokens, then a layer norm; token: the class position after the encoder's norm; "": all tokens."""


class TimmEncoder(nn.Module):
    """Images, normalised -> class scores, or features with `num_classes=0`."""

    num_prefix_tokens = 1
    mean: Tensor
    std: Tensor
    global_pool: GlobalPool
    fc_norm: nn.Module
    head: nn.Module

    def __init__(
        self,
        model: Mage,
        cfg: Mapping[str, Any],
        *,
        num_classes: int | None = None,
        global_pool: GlobalPool | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        """The networks of `model` are used, not copied.

        cfg: timm's `pretrained_cfg`: input_size, mean, std, ... num_classes, global_pool: None: as of a classifier,
        else 0 and "avg". drop_rate: dropout before the head. drop_path_rate: of the last block, growing with depth.
        """
        super().__init__()
        network = model.require_transformer()
        takes_pixels = isinstance(network, PatchEncoder | PatchClassifier)
        tokenizer = None if takes_pixels else model.require_tokenizer()
        if tokenizer is not None and not isinstance(tokenizer, nn.Module):
            raise ValueError(f"timm's interface takes a tokenizer that is an nn.Module, not {type(tokenizer).__name__}")
        self.tokenizer: Any = None if tokenizer is None else tokenizer.eval().requires_grad_(False)
        encoder: Any = network if isinstance(network, PatchEncoder) else network.encoder
        assert isinstance(encoder, MAGEEncoder | PatchEncoder)
        self.encoder, self.channels = encoder, model.channels
        self.pretrained_cfg = self.default_cfg = dict(cfg)
        self.in_chans = int(cfg["input_size"][0])
        for name in ("mean", "std"):
            values = torch.tensor(cfg[name], dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.num_features = self.head_hidden_size = self.embed_dim = network.config.width
        self.grad_checkpointing = False
        stride = model.image_size[0] // encoder.grid[0]
        self.feature_info = [
            {"module": f"encoder.blocks.{index}", "num_chs": self.embed_dim, "reduction": stride}
            for index in range(len(encoder.blocks))
        ]
        self._set_dropout(drop_path_rate)
        self.head_drop = nn.Dropout(drop_rate)
        self.head_norm: nn.Module = nn.Identity()
        own = network if isinstance(network, Classifier) else None
        pool: GlobalPool = "token" if own is not None and own.pool == "class" else "avg"
        self.reset_classifier(0 if num_classes is None else num_classes, pool if global_pool is None else global_pool)
        if own is not None and self.global_pool == pool:
            self.fc_norm = own.feature_norm or nn.Identity()
            if num_classes in (None, own.num_classes):
                self.num_classes, self.head, self.head_norm = own.num_classes, own.head, own.head_norm or nn.Identity()

    def _set_dropout(self, drop_path_rate: float) -> None:
        """No dropout in the blocks, as in timm's models, whatever the pre-training had."""
        for index, block in enumerate(self.encoder.blocks):
            for layer in block.modules():
                if isinstance(layer, nn.Dropout):
                    layer.p = 0.0
            rate = drop_path_rate * index / max(1, len(self.encoder.blocks) - 1)
            block.drop_path1, block.drop_path2 = (DropPath(rate) if rate else nn.Identity() for _ in range(2))

    def train(self, mode: bool = True) -> "TimmEncoder":
        """As of any module, except that the tokenizer stays in evaluation mode."""
        super().train(mode)
        if self.tokenizer is not None:
            self.tokenizer.eval()
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> "TimmEncoder":
        """What `to`, `cuda` and `half` call: after a move the fastest attention can be another."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        choose_attention(self, self.mean.device)
        return self

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters form a layer, for layer decay: tokenizer and embedding, each block, the rest."""
        return {
            "stem": r"^tokenizer|^encoder\.(?:embedding|patches|class_token|position)",
            "blocks": [(r"^encoder\.blocks\.(\d+)", None), (r"^(?:encoder\.norm|fc_norm)", (99999,))],
        }

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay although they are not vectors."""
        return {"encoder.class_token", "encoder.position"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether blocks are computed again in the backward pass, which takes less memory and more time."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: GlobalPool | None = None) -> None:
        """A new head with random weights; 0 classes: none. Raises ValueError for another pool, or one without norm."""
        if global_pool is not None:
            if global_pool not in get_args(GlobalPool):
                raise ValueError(f'global_pool must be "avg", "token" or "", not {global_pool!r}')
            if global_pool == "token" and self.encoder.norm is None:
                raise ValueError('this checkpoint pools by mean and has no norm for the class token: take "avg"')
            average = nn.LayerNorm(self.embed_dim, eps=1e-6, elementwise_affine=False)
            self.fc_norm = average if global_pool == "avg" else nn.Identity()
            self.global_pool = global_pool
            if self.encoder.norm is not None:  # the mean does not pass it, and parameters without gradient stop DDP
                self.encoder.norm.requires_grad_(global_pool != "avg")
        self.num_classes, self.head_norm = num_classes, nn.Identity()
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
        self.head.to(self.mean.device)

    def embed(self, x: Tensor) -> Tensor:
        """Normalised images (n, c, H, W) -> the input of the first block (n, l1, d)."""
        if x.shape[1] != self.in_chans:
            raise ValueError(f"the images have {x.shape[1]} channels; for these create the model with in_chans of it")
        unit = (x * self.std + self.mean).clamp(0, 1)  # of images that were mixed or erased, too
        unit = pixels.with_channels(unit, self.channels)
        if self.tokenizer is None:
            embedded: Tensor = self.encoder.embed(unit)
            return embedded
        with torch.no_grad():
            ids = self.tokenizer.encode(unit)
        embedded = self.encoder.embed(ids.flatten(1))
        return embedded

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images -> all tokens (n, l1, d); through the encoder's norm unless their mean is taken."""
        x = self.embed(x)
        if self.grad_checkpointing:
            x = checkpoint_seq(self.encoder.blocks, x)
        else:
            for block in self.encoder.blocks:
                x = block(x)
        return self._final(x)

    def _final(self, x: Tensor) -> Tensor:
        return x if self.global_pool == "avg" else self._normed(x)

    def _normed(self, x: Tensor) -> Tensor:
        normed: Tensor = x if self.encoder.norm is None else self.encoder.norm(x)
        return normed

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens -> scores (n, k); pre_logits: the features that they are computed from, those of `Mage.features`."""
        if self.global_pool == "avg":
            x = x[:, self.num_prefix_tokens :].float().mean(dim=1)
        elif self.global_pool == "token":
            x = x[:, 0]
        x = self.head_drop(self.fc_norm(x.to(next(self.encoder.parameters()).dtype)))
        return x if pre_logits else self.head(self.head_norm(x))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images -> scores; with 0 classes, features."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Outputs of the chosen blocks as maps (n, d, h, w) or rows (n, l, d): a list, or (all tokens, list).

        indices: numbers of blocks, the last so many, or None for all. return_prefix_tokens: pairs with the class
        position (n, 1, d). stop_early: blocks after the last chosen one are not computed.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt must be NCHW or NLC, not {output_fmt!r}")
        chosen = block_numbers(len(self.encoder.blocks), indices)
        x = self.embed(x)
        outputs = []
        for index, block in enumerate(self.encoder.blocks[: max(chosen) + 1] if stop_early else self.encoder.blocks):
            x = checkpoint_seq([block], x) if self.grad_checkpointing else block(x)
            if index in chosen:
                outputs.append(self._normed(x) if norm else x)
        first = [output[:, : self.num_prefix_tokens] for output in outputs]
        rows = [output[:, self.num_prefix_tokens :] for output in outputs]
        if output_fmt == "NCHW":
            rows = [row.transpose(1, 2).unflatten(2, self.encoder.grid).contiguous() for row in rows]
        results = list(zip(rows, first, strict=True)) if return_prefix_tokens else rows
        return results if intermediates_only else (self._final(x), results)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> Any:
        """DINO's name for it: outputs of the last n blocks, or of the blocks n, as rows or, with reshape, maps."""
        return self.forward_intermediates(
            x,
            n,
            return_prefix_tokens,
            norm,
            output_fmt="NCHW" if reshape else "NLC",
            intermediates_only=True,
        )

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the chosen blocks do not need; gives their numbers."""
        chosen = sorted(block_numbers(len(self.encoder.blocks), indices))
        self.encoder.blocks = self.encoder.blocks[: chosen[-1] + 1]
        if prune_norm:
            self.encoder.norm = None
        if prune_head:
            self.reset_classifier(0, "")
        return chosen
