"""Dropout with masks of its own on a CPU: the same distribution as PyTorch's."""

import pytest
import torch
from torch import nn

from mage.nn.dropout import Dropout, use_dropout


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_p_is_zero_and_the_others_are_scaled(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(1001, 999, dtype=dtype))  # an odd number of elements
    assert dropped.dtype == dtype
    zeros = (dropped == 0).float().mean().item()
    assert zeros == pytest.approx(p, abs=4 * (p * (1 - p) / 1e6) ** 0.5 + 2**-17)
    others = dropped[dropped != 0].float()
    assert others.min() == others.max()
    assert others[0].item() == pytest.approx(1 / (1 - p), rel=1e-4 if dtype == torch.float32 else 4e-3)


def test_neighbours_are_independent() -> None:
    """Four elements share one random number."""
    torch.manual_seed(0)
    zero = (Dropout(0.3)(torch.ones(2**20)) == 0).double() - 0.3
    for lag in (1, 2, 3, 4, 8):
        assert (zero[lag:] * zero[:-lag]).mean().abs() < 5 * 0.21 / 2**10
    for place in range(4):
        assert zero[place::4].mean().abs() < 5 * 0.46 / 2**9


def test_the_gradient_takes_the_same_mask_and_a_seed_repeats_it() -> None:
    x = torch.randn(3, 5, 7, requires_grad=True)
    torch.manual_seed(3)
    y = Dropout(0.4)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y, x * gradient)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.4)(x), y)
    assert not torch.equal(Dropout(0.4)(x), y)


def test_nothing_is_drawn_where_nothing_is_dropped() -> None:
    x, state = torch.randn(5, 6), torch.get_rng_state()
    for same in (Dropout(0.0)(x), Dropout(0.5).eval()(x)):
        assert same is x or torch.equal(same, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert Dropout(1.0)(x).count_nonzero() == 0
    assert Dropout(0.5)(torch.ones(0, 4)).shape == (0, 4)


def test_every_dropout_below_a_module_is_replaced_and_back() -> None:
    module = nn.Sequential(nn.Dropout(0.2), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3)))
    use_dropout(module)
    found = [layer for layer in module.modules() if isinstance(layer, nn.Dropout)]
    assert [(type(layer), layer.p) for layer in found] == [(Dropout, 0.2), (Dropout, 0.3)]
    use_dropout(module, nn.Dropout)
    assert not [layer for layer in module.modules() if isinstance(layer, Dropout)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own
def test_compiled_code_takes_dropout_of_the_compiler() -> None:
    torch.manual_seed(0)
    dropped = torch.compile(Dropout(0.25), fullgraph=True)(torch.ones(400, 250))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
