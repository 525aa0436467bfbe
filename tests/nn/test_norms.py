"""The lean group norm against PyTorch's."""

import pytest
import torch
from torch import nn

from mage.nn.norms import GroupNorm, lean_group_norm


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_group_norm_equals_pytorchs(layout: torch.memory_format, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 12)
    nn.init.normal_(norm.weight, 1, 0.3)
    nn.init.normal_(norm.bias)
    x = (torch.randn(3, 12, 5, 7) * 2 + torch.randn(3, 12, 1, 1)).to(dtype).contiguous(memory_format=layout)
    with torch.no_grad():
        expected, found = norm(x.float()), lean_group_norm(x, norm)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=layout)
    assert (found.float() - expected).abs().max() < tolerance * expected.abs().max()


def test_weights_are_called_as_pytorch_calls_them() -> None:
    assert GroupNorm(2, 4).state_dict().keys() == nn.GroupNorm(2, 4).state_dict().keys()
