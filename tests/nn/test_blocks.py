"""Transformer blocks: settings reach timm's layers, and both attention kernels agree."""

import pytest
import torch
from timm.layers import DropPath
from timm.models.vision_transformer import Attention
from torch import nn

from mage import rng
from mage.nn.blocks import choose_attention, transformer_blocks, xavier_linears


def attentions(module: nn.Module) -> list[Attention]:
    return [layer for layer in module.modules() if isinstance(layer, Attention)]


def test_blocks_have_the_sizes_that_were_asked_for() -> None:
    blocks = transformer_blocks(3, 12, 4, mlp_ratio=2.5, dropout=0.3)
    assert len(blocks) == 3
    assert [layer.num_heads for layer in attentions(blocks)] == [4, 4, 4]
    assert sorted({tuple(layer.weight.shape) for layer in blocks.modules() if isinstance(layer, nn.Linear)}) == [
        (12, 12), (12, 30), (30, 12), (36, 12),
    ]  # fmt: skip
    assert all(layer.bias is not None for layer in blocks.modules() if isinstance(layer, nn.Linear))
    assert {layer.eps for layer in blocks.modules() if isinstance(layer, nn.LayerNorm)} == {1e-6}
    rates = [layer.p for layer in blocks[0].modules() if isinstance(layer, nn.Dropout)]
    assert len(rates) == 4, "attention, projection, and twice in the MLP"
    assert set(rates) == {0.3}


def test_whole_blocks_are_left_out_more_often_the_deeper_they_are() -> None:
    blocks = transformer_blocks(5, 8, 2, mlp_ratio=2.0, dropout=0.0, drop_path=0.2)
    rates = [[layer.drop_prob for layer in block.modules() if isinstance(layer, DropPath)] for block in blocks]
    assert rates[0] == [], "never the first"
    assert [max(each) for each in rates[1:]] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert len(transformer_blocks(1, 8, 2, mlp_ratio=2.0, dropout=0.0, drop_path=0.2)) == 1


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="width 10 is not a multiple of 4 heads"):
        transformer_blocks(1, 10, 4, mlp_ratio=4.0, dropout=0.0)


def test_each_device_gets_its_attention_kernel_and_both_compute_the_same() -> None:
    blocks = transformer_blocks(2, 16, 2, mlp_ratio=2.0, dropout=0.0)
    x = torch.randn(2, 5, 16, generator=rng.generator(0))
    results = []
    for device, fused in (("cpu", False), ("cuda", True)):
        choose_attention(blocks, torch.device(device))
        assert [layer.fused_attn for layer in attentions(blocks)] == [fused, fused]
        results.append(blocks[1](blocks[0](x)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_linears_start_xavier_uniform_without_bias() -> None:
    module = nn.Sequential(nn.Linear(300, 100), nn.ModuleList([nn.Linear(7, 5, bias=False)]), nn.Conv2d(3, 3, 1))
    before = module[2].weight.clone()
    for parameter in module[:2].parameters():
        nn.init.constant_(parameter, 9)
    xavier_linears(module)
    bound = (6 / 400) ** 0.5
    weight = module[0].weight
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert module[0].bias.count_nonzero() == 0
    assert module[1][0].weight.abs().max() <= (6 / 12) ** 0.5
    assert torch.equal(module[2].weight, before), "convolutions are left alone"
