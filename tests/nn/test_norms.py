"""The lean group norm against PyTorch's."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from mage.nn.norms import GroupNorm, added, lean_group_norm
from mage.tokenizers.vqgan import ResidualBlock


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


@pytest.mark.parametrize("offset", [1.0, 4.0, 16.0])
def test_rounding_moves_no_group_as_a_whole(offset: float) -> None:
    """Errors of single numbers average out in the layers behind; those of a group's constant do not."""
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 32)
    x = (torch.randn(2, 32, 16, 16) + offset).bfloat16()
    with torch.no_grad():
        error = lean_group_norm(x, norm).float() - norm(x.float())
    assert error.view(2, 4, -1).mean(dim=2).abs().max() < 0.002


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 3e-2)])
def test_gradients_equal_pytorchs(
    layout: torch.memory_format, silu: bool, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    exact = nn.GroupNorm(4, 12).double()
    nn.init.normal_(exact.weight, 1, 0.3)
    nn.init.normal_(exact.bias)
    norm = copy.deepcopy(exact).to(torch.float64 if dtype == torch.float64 else torch.float32)
    x = (torch.randn(3, 12, 5, 7) * 2 + torch.randn(3, 12, 1, 1)).to(dtype).contiguous(memory_format=layout)
    upstream = torch.randn(3, 12, 5, 7).to(dtype).contiguous(memory_format=layout)
    x.requires_grad_()
    result = lean_group_norm(x, norm, silu=silu)
    found = torch.autograd.grad(result, (x, norm.weight, norm.bias), upstream)
    wide = x.detach().double().requires_grad_()
    result = functional.silu(exact(wide)) if silu else exact(wide)
    expected = torch.autograd.grad(result, (wide, exact.weight, exact.bias), upstream.double())
    assert found[0].dtype == dtype
    assert found[0].is_contiguous(memory_format=layout)
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).abs().max() < tolerance * other.abs().max()


def test_training_keeps_the_input_alone() -> None:
    """The normalized input and its SiLU are the largest tensors of a tokenizer's step: they are computed again."""
    norm, kept = GroupNorm(4, 12), []
    x = torch.randn(2, 12, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        lean_group_norm(x, norm, silu=True)
    assert sum(tensor.numel() == x.numel() for tensor in kept) == 1


def test_the_formula_for_compilers_has_the_same_values_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    norm = GroupNorm(4, 12)
    nn.init.normal_(norm.weight, 1, 0.3)
    x = torch.randn(2, 12, 4, 4, requires_grad=True)
    found = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        result = lean_group_norm(x, norm, silu=True)
        assert ("LeanNorm" in type(result.grad_fn).__name__) == (not compiling)
        found.append((result, *torch.autograd.grad(result.square().sum(), (x, norm.weight, norm.bias))))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_weights_are_called_as_pytorch_calls_them() -> None:
    assert GroupNorm(2, 4).state_dict().keys() == nn.GroupNorm(2, 4).state_dict().keys()


@pytest.mark.parametrize("widths", [(8, 8), (8, 16)])
def test_blocks_without_gradients_give_the_same_and_leave_their_input(widths: tuple[int, int]) -> None:
    block = ResidualBlock(*widths)
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    given = x.clone()
    expected = block(x)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert torch.equal(block(x), expected)
    assert torch.equal(x, given)
    expected.sum().backward()


def test_a_sum_without_gradients_takes_the_place_of_its_second_part() -> None:
    x, h = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    with torch.no_grad():
        assert added(x, h) is h
        assert added(x.bfloat16(), h).dtype == torch.float32
    assert (x == 1).all()
