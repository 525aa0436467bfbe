"""I-JEPA (Assran et al. 2023): a baseline that predicts representations instead of tokens or pixels.

From one large block of an image, the context, the network predicts a second encoder's output for four smaller blocks,
the targets, which are cut out of the context. This second encoder, the target encoder, sees the whole image. It is a
moving average of the first, receives no gradient, and is the one that is kept (section 3 and appendix A.1).

Three details differ from the paper. The encoder has a class token, as the other baselines do: it is never predicted,
but patches attend to it, so that every probe works. Targets are layer-normalised without scale and shift, so that the
loss cannot fall by making them small. All images of a step have blocks of the same sizes and contexts of the same
length, so that a batch has one shape.

Letters: n images, c channels, H W pixels, l patches, k context patches, m target blocks, t patches of one target block,
d encoder width, p predictor width.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mage.masking import Mask
from mage.models.pixels import PatchEncoder, PatchEncoderConfig
from mage.nn.blocks import choose_attention, transformer_blocks, xavier_linears
from mage.nn.positions import sincos_positions

TRIES = 100
"""Attempts at an image's blocks before all its targets are placed at the same position."""


@dataclass(frozen=True)
class BlockConfig:
    """Sizes of the blocks; the defaults are the paper's."""

    targets: int = 4
    """Target blocks of an image; they may overlap."""
    target_scale: tuple[float, float] = (0.15, 0.2)
    """Smallest and largest share of the image in one target block."""
    target_aspect: tuple[float, float] = (0.75, 1.5)
    """Smallest and largest height of a target block over its width."""
    context_scale: tuple[float, float] = (0.85, 1.0)
    """Smallest and largest share of the image in the context block, a square, before the targets are cut out."""
    least_context: float = 0.15
    """Smallest share of the patches in a context: an image with a smaller one gets new blocks."""

    def __post_init__(self) -> None:
        if self.targets < 1:
            raise ValueError(f"targets must be at least 1 block, not {self.targets}")
        for name in ("target_scale", "target_aspect", "context_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name != "target_aspect" and high > 1):
                end = "" if name == "target_aspect" else " <= 1"
                raise ValueError(f"{name} needs 0 < smallest <= largest{end}, not {low}, {high}")
        if not 0 <= self.least_context < 1:
            raise ValueError(f"least_context must lie in [0, 1), not {self.least_context}")


class Blocks(NamedTuple):
    """Context and targets of a batch of images."""

    context: Bool[Tensor, "n l"]
    """Patches that the context encoder sees, the same number for each image."""
    targets: Int[Tensor, "n m t"]
    """Patches of each target block, row by row."""

    @property
    def mask(self) -> Mask:
        """The context as a mask for the encoder."""
        return Mask(masked=~self.context, dropped=~self.context)


def draw_blocks(config: BlockConfig, count: int, grid: tuple[int, int], generator: torch.Generator) -> Blocks:
    """Blocks of a step's whole batch of `count` images, on the CPU: one size per batch, positions per image.

    Contexts are cut to the shortest one of the batch by leaving out patches at random. Raises ValueError for a grid
    in which a target can cover the context.
    """
    scale, aspect, context_scale = (
        low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
        for low, high in (config.target_scale, config.target_aspect, config.context_scale)
    )
    size, around = block_size(grid, scale, aspect), block_size(grid, context_scale, 1.0)
    if around[0] * around[1] <= size[0] * size[1]:
        raise ValueError(
            f"on a grid of {grid} patches a target block of {size} leaves nothing of a context block of {around}; "
            "take smaller patches or a smaller target_scale"
        )
    least = max(1, math.ceil(config.least_context * grid[0] * grid[1]))
    targets = _places(grid, size, (count, config.targets), generator)
    context = _context(grid, _places(grid, around, (count,), generator), targets)
    for _ in range(TRIES):
        short = context.sum(dim=1) < least
        if not short.any():
            break
        # Every image draws, whether it needs to or not, so that the other images' blocks do not depend on it.
        redrawn = _places(grid, size, (count, config.targets), generator)
        targets = torch.where(short[:, None, None], redrawn, targets)
        redrawn_context = _context(grid, _places(grid, around, (count,), generator), targets)
        context = torch.where(short[:, None], redrawn_context, context)
    empty = ~context.any(dim=1)  # one target cannot cover the context; several together can
    together = targets[:, :1].expand_as(targets)
    targets = torch.where(empty[:, None, None], together, targets)
    context = torch.where(empty[:, None], _context(grid, _places(grid, around, (count,), generator), targets), context)
    noise = torch.rand(context.shape, generator=generator).masked_fill(~context, 2.0)
    rank = noise.argsort(dim=1, stable=True).argsort(dim=1)
    return Blocks(rank < context.sum(dim=1).min(), targets)


def block_size(grid: tuple[int, int], scale: float, aspect: float) -> tuple[int, int]:
    """Height and width of the block with the share `scale` of the grid and height / width near `aspect`."""
    area = scale * grid[0] * grid[1]
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return min(max(1, height), grid[0]), min(max(1, width), grid[1])


def _places(
    grid: tuple[int, int], size: tuple[int, int], shape: tuple[int, ...], generator: torch.Generator
) -> Int[Tensor, "*shape t"]:
    """Patches of blocks of one size, placed uniformly at random in the grid."""
    top = torch.randint(grid[0] - size[0] + 1, shape, generator=generator)
    left = torch.randint(grid[1] - size[1] + 1, shape, generator=generator)
    inside = torch.arange(size[0])[:, None] * grid[1] + torch.arange(size[1])
    return (top * grid[1] + left)[..., None] + inside.flatten()


def _context(grid: tuple[int, int], block: Int[Tensor, "n a"], targets: Int[Tensor, "n m t"]) -> Bool[Tensor, "n l"]:
    seen = torch.zeros(len(block), grid[0] * grid[1], dtype=torch.bool)
    return seen.scatter(1, block, True).scatter(1, targets.flatten(1), False)


@dataclass(frozen=True)
class IJEPAConfig:
    """What I-JEPA adds to its encoder; the defaults are the paper's for ViT-L and ViT-H (appendix A.1)."""

    predictor_width: int = 384
    """Width of the predictor, which has as many attention heads as the encoder."""
    predictor_depth: int = 12
    """Blocks of the predictor; the paper takes 6 with ViT-B."""
    momentum: float = 0.996
    """Decay of the target encoder's moving average at the start; it rises linearly to 1 at the end of training."""
    blocks: BlockConfig = field(default_factory=BlockConfig)
    """Context and targets."""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], not {self.momentum}")

    def momentum_at(self, progress: float) -> float:
        """Decay after the share `progress` of the training."""
        return self.momentum + (1 - self.momentum) * progress


class Predictor(nn.Module):
    """A narrow ViT that predicts one target block's vectors from the context's vectors and the block's positions."""

    position: Tensor

    def __init__(self, encoder: PatchEncoderConfig, config: IJEPAConfig) -> None:
        super().__init__()
        width = config.predictor_width
        self.embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        self.register_buffer("position", sincos_positions(encoder.grid, width))
        self.blocks = transformer_blocks(
            config.predictor_depth, width, encoder.heads, mlp_ratio=encoder.mlp_ratio, dropout=0.0
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, encoder.width)
        xavier_linears(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self, context: Float[Tensor, "n k d"], kept: Int[Tensor, "n k"], targets: Int[Tensor, "n m t"]
    ) -> Float[Tensor, "n m t d"]:
        """Each block is predicted on its own: blocks do not see each other."""
        n, m, t = targets.shape
        context_rows = self.embed(context) + self.position[kept]
        queries = self.mask_token + self.position[targets]
        x = torch.cat([context_rows[:, None].expand(-1, m, -1, -1), queries.to(context_rows)], dim=2).flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        predicted: Tensor = self.head(self.norm(x[:, -t:]))
        return predicted.view(n, m, t, -1)


class IJEPA(nn.Module):
    """Context encoder, predictor and target encoder; after pre-training only the target encoder is kept."""

    def __init__(self, encoder: PatchEncoderConfig, config: IJEPAConfig) -> None:
        super().__init__()
        self.config = config
        self.context_encoder = PatchEncoder(encoder)
        self.predictor = Predictor(encoder, config)
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)
        choose_attention(self, self.predictor.mask_token.device)

    @property
    def encoder(self) -> PatchEncoder:
        """The encoder that is kept and that the paper evaluates: the target encoder."""
        return self.target_encoder

    def forward(self, images: Float[Tensor, "n c H W"], mask: Mask, targets: Int[Tensor, "n m t"]) -> Float[Tensor, ""]:
        """Squared error of the predicted representations (section 3, "Loss").

        It is the mean over images, blocks, patches and channels, where the paper sums over the last two: so its size
        does not depend on the sizes of blocks and encoder. The public code takes a smooth L1 distance instead.
        """
        assert self.context_encoder.norm is not None
        context = self.context_encoder.norm(self.context_encoder(images, mask))[:, 1:]
        predicted = self.predictor(context, mask.kept_index, targets)
        return functional.mse_loss(predicted.float(), self.targets(images, targets))

    @torch.no_grad()
    def targets(self, images: Float[Tensor, "n c H W"], targets: Int[Tensor, "n m t"]) -> Float[Tensor, "n m t d"]:
        """The target encoder's output, from the whole image, at the targets' patches, layer-normalised."""
        assert self.target_encoder.norm is not None
        x = self.target_encoder.norm(self.target_encoder(images))[:, 1:].float()
        x = functional.layer_norm(x, x.shape[2:], eps=1e-6)
        chosen: Tensor = x.gather(1, targets.flatten(1)[..., None].expand(-1, -1, x.shape[2]))
        return chosen.view(*targets.shape, -1)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the target encoder: momentum x itself + (1 - momentum) x the context encoder."""
        targets: list[Tensor] = list(self.target_encoder.parameters())
        currents: list[Tensor] = list(self.context_encoder.parameters())
        torch._foreach_lerp_(targets, currents, 1 - momentum)
