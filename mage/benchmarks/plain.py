"""A plain implementation of the method from the paper, on our networks' weights: the baseline for speed.

Everything is in float32 and PyTorch's default layout, with explicit softmax attention, logits of all words at all
positions, boolean masks to drop tokens and to put them back, and PyTorch's AdamW. The tests check that its results are
those of the library's own networks.

Letters: n images, l tokens, k kept tokens, d width, v words.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mage.models import MAGETransformer
from mage.tokenizers import VQGAN
from mage.tokenizers.vqgan import ResidualBlock


def block(module: Any, x: Float[Tensor, "n l d"], dropout: float) -> Float[Tensor, "n l d"]:
    """A pre-norm transformer block, like timm's Block (docs/method.md, Encoder and decoder)."""
    attention, mlp = module.attn, module.mlp
    count, length, width = x.shape
    qkv = attention.qkv(module.norm1(x)).reshape(count, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv[0], qkv[1], qkv[2]
    weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
    weights = functional.dropout(weights, dropout, module.training)
    x = x + functional.dropout(
        attention.proj((weights @ value).transpose(1, 2).reshape(count, length, width)), dropout, module.training
    )
    hidden = functional.dropout(functional.gelu(mlp.fc1(module.norm2(x))), dropout, module.training)
    result: Tensor = x + functional.dropout(mlp.fc2(hidden), dropout, module.training)
    return result


def logits(
    network: MAGETransformer, ids: Int[Tensor, "n l"], masked: Bool[Tensor, "n l"], dropped: Bool[Tensor, "n l"]
) -> Float[Tensor, "n l1 v"]:
    """Scores of all words at all positions, the class position first (docs/method.md, Encoder and decoder)."""
    words, dropout = network.vocabulary, network.config.dropout
    class_column = ids.new_full((len(ids), 1), words.null_class_id)
    ids = torch.cat([class_column, torch.where(masked, words.mask_id, ids)], dim=1)
    masked, dropped = functional.pad(masked, (1, 0)), functional.pad(dropped, (1, 0))
    embedding = network.encoder.embedding
    x = embedding.word(ids) + embedding.position.weight
    x = functional.dropout(embedding.norm(x), dropout, network.training)
    x = x[~dropped].reshape(len(ids), -1, x.shape[2])
    for encoder_block in network.encoder.blocks:
        x = block(encoder_block, x, dropout)
    assert network.encoder.norm is not None
    x = network.decoder_embed(network.encoder.norm(x))
    filled = x[:, :1].repeat(1, ids.shape[1], 1)
    filled[~dropped] = x.reshape(-1, x.shape[2])
    x = torch.where(masked[..., None], x[:, :1], filled) + network.decoder_position
    for decoder_block in network.decoder_blocks:
        x = block(decoder_block, x, dropout)
    head = network.head
    x = head.norm(functional.gelu(head.linear(network.decoder_norm(x))))
    scores: Tensor = x @ embedding.word.weight.detach().T + head.bias
    return scores


def loss(
    network: MAGETransformer, ids: Int[Tensor, "n l"], masked: Bool[Tensor, "n l"], dropped: Bool[Tensor, "n l"]
) -> Float[Tensor, ""]:
    """Cross-entropy over the codes with label smoothing, mean over masked positions."""
    codes, smoothing = network.vocabulary.num_codes, network.config.label_smoothing
    scores = logits(network, ids, masked, dropped)[:, 1:, :codes].transpose(1, 2)
    per_token = functional.cross_entropy(scores, ids, label_smoothing=smoothing, reduction="none")
    return (per_token * masked).sum() / masked.sum()


def adamw(network: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW with the paper's settings, one tensor after the other."""
    return torch.optim.AdamW(
        network.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.05, foreach=False
    )


def residual(module: ResidualBlock, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h w"]:
    """A residual block of the tokenizer (docs/method.md, Tokens and grid)."""
    h = module.conv1(functional.silu(module.norm1(x)))
    h = module.conv2(functional.silu(module.norm2(h)))
    result: Tensor = h + (x if module.shortcut is None else module.shortcut(h))
    return result


def latent(tokenizer: VQGAN, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n e h w"]:
    """Images -> vectors before quantization."""
    encoder: Any = tokenizer.encoder
    x = encoder.stem(functional.pixel_unshuffle(images, encoder.patch_size))
    for index, level in enumerate(encoder.levels):
        if index:
            x = functional.avg_pool2d(x, 2)
        for part in level:
            x = residual(part, x)
    for part in encoder.middle:
        x = residual(part, x)
    x = encoder.out(functional.silu(encoder.norm(x)))
    return functional.normalize(x, dim=1) if tokenizer.config.quantizer.kind == "normalized" else x


def nearest(tokenizer: VQGAN, vectors: Float[Tensor, "n e h w"]) -> Int[Tensor, "n l"]:
    """Ids of the nearest words."""
    words = tokenizer.quantizer.words()
    rows = vectors.permute(0, 2, 3, 1).reshape(-1, vectors.shape[1])
    distances = rows.square().sum(1, keepdim=True) + words.square().sum(1) - 2 * rows @ words.T
    return distances.argmin(dim=1).view(len(vectors), -1)


def words(tokenizer: VQGAN, ids: Int[Tensor, "n l"]) -> Float[Tensor, "n e h w"]:
    """Ids -> their words, as a grid."""
    rows = functional.embedding(ids, tokenizer.quantizer.words())
    return rows.view(len(ids), *tokenizer.grid, -1).permute(0, 3, 1, 2).contiguous()


def pixels(tokenizer: VQGAN, vectors: Float[Tensor, "n e h w"]) -> Float[Tensor, "n c H W"]:
    """Words -> images, not clamped."""
    decoder: Any = tokenizer.decoder
    x = decoder.stem(vectors)
    for part in decoder.middle:
        x = residual(part, x)
    for index, level in enumerate(decoder.levels):
        if index:
            x = decoder.upsample[index - 1](functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        for part in level:
            x = residual(part, x)
    x = decoder.out(functional.silu(decoder.norm(x)))
    return functional.pixel_shuffle(x, decoder.patch_size)


def encode(tokenizer: VQGAN, images: Float[Tensor, "n c H W"]) -> Int[Tensor, "n l"]:
    """Images -> ids."""
    return nearest(tokenizer, latent(tokenizer, images))


def decode(tokenizer: VQGAN, ids: Int[Tensor, "n l"]) -> Float[Tensor, "n c H W"]:
    """Ids -> images in [0, 1]."""
    return pixels(tokenizer, words(tokenizer, ids)).clamp(0, 1)


@torch.no_grad()
def generate(
    network: MAGETransformer,
    start: Int[Tensor, "n l"],
    *,
    steps: int,
    choice_temperature: float,
    generator: torch.Generator,
) -> Int[Tensor, "n l"]:
    """Iterative decoding (docs/method.md, Sampling): every token in every pass; -1 = unknown, equally many per grid.

    generator: on the device of `start`.
    """
    tokens = start
    at_start = int((start[0] == -1).sum())
    for step in range(steps):
        unknown = tokens == -1
        scores = logits(network, tokens, unknown, torch.zeros_like(unknown))[:, 1:, : network.vocabulary.num_codes]
        probability = scores.softmax(dim=-1)
        sampled = torch.multinomial(probability.flatten(0, 1), 1, generator=generator).view_as(tokens)
        sampled = torch.where(unknown, sampled, tokens)
        confidence = probability.gather(2, sampled[..., None])[..., 0].log()
        uniform = torch.rand(confidence.shape, generator=generator, device=confidence.device).clamp(min=1e-30)
        confidence = confidence - choice_temperature * (1 - (step + 1) / steps) * (-uniform.log()).log()
        confidence = torch.where(unknown, confidence, torch.inf)
        keep_hidden = math.floor(at_start * math.cos(math.pi / 2 * (step + 1) / steps))
        keep_hidden = 0 if step == steps - 1 else max(1, min(int(unknown[0].sum()) - 1, keep_hidden))
        cut = confidence.sort(dim=1).values[:, keep_hidden : keep_hidden + 1]
        tokens = torch.where(confidence < cut, -1, sampled)
    return tokens


@torch.no_grad()
def features(network: MAGETransformer, ids: Int[Tensor, "n l"]) -> Float[Tensor, "n d"]:
    """Mean of the last block's tokens, then a LayerNorm without weights (docs/method.md, Features)."""
    embedding = network.encoder.embedding
    ids = functional.pad(ids, (1, 0), value=network.vocabulary.null_class_id)
    x = embedding.norm(embedding.word(ids) + embedding.position.weight)
    for encoder_block in network.encoder.blocks:
        x = block(encoder_block, x, 0.0)
    return functional.layer_norm(x[:, 1:].mean(dim=1), x.shape[2:], eps=1e-6)
