"""The lean group norm against PyTorch's."""

import pytest
import torch
from torch import nn

from mage.nn.norms import GroupNorm, lean_group_norm


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_it_computes_what_pytorch_does(layout: torch.memory_format, dtype: torch.dtype, tolerance: float) -> None:
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_module_takes_the_short_way_on_a_gpu_and_agrees() -> None:
    norm = GroupNorm(4, 32).cuda()
    x = torch.randn(2, 32, 16, 16, device="cuda").to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        found = norm(x)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.float(), nn.GroupNorm(4, 32).cuda()(x.float()), atol=0.03, rtol=0.03)
