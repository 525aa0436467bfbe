"""Muon against its definition: the singular value decomposition, and AdamW for all that is no matrix."""

import copy
import math

import pytest
import torch
from torch import nn

from mage import rng
from mage.training.muon import Muon, muon_groups, orthogonalized
from mage.training.optim import OptimConfig, build_optimizer


class Network(nn.Module):
    """A block with everything that is treated in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(5, 8)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.conv = nn.Conv2d(2, 4, 3)


@pytest.fixture
def network() -> Network:
    module = Network()
    for index, parameter in enumerate(module.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=rng.generator(0, index))
        parameter.grad = torch.randn(parameter.shape, generator=rng.generator(1, index))
    return module


@pytest.mark.parametrize("shape", [(2, 16, 24), (3, 8, 40), (1, 40, 8)])
def test_newton_schulz_approaches_the_nearest_orthogonal_matrix(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=rng.generator(0))
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalized(matrices)
    assert (torch.linalg.svdvals(found) - 1).abs().max() < 0.25
    cosine = nn.functional.cosine_similarity(found.flatten(1), (u @ v).flatten(1))
    assert cosine.min() > 0.99


def test_matrices_are_made_orthogonal_in_the_precision_of_the_run(network: Network) -> None:
    """In bfloat16 the result depends on rounding, which parts of a batch and processes change."""
    config, steps = OptimConfig(optimizer="muon"), {}
    for precision in ("float32", "bf16"):
        own = copy.deepcopy(network)
        for parameter, other in zip(own.parameters(), network.parameters(), strict=True):
            parameter.grad = other.grad
        optimizer = build_optimizer(own, config, precision)
        optimizer.step()
        steps[precision] = own.qkv.weight.detach()
    plain = copy.deepcopy(network)
    for parameter, other in zip(plain.parameters(), network.parameters(), strict=True):
        parameter.grad = other.grad
    Muon(muon_groups(plain, config.weight_decay), lr=config.peak_learning_rate, betas=config.betas).step()
    assert torch.equal(steps["float32"], plain.qkv.weight)
    assert not torch.equal(steps["bf16"], plain.qkv.weight)


def test_matrices_take_steps_of_adamws_size_in_the_orthogonal_direction(network: Network) -> None:
    before = copy.deepcopy(network)
    optimizer = Muon(muon_groups(network, 0.1), lr=0.01, betas=(0.9, 0.95), momentum=0.9)
    optimizer.step()
    # After one step the momentum is 0.1 g, looked ahead 0.1 g + 0.9 x 0.1 g: the direction is the gradient's.
    grad = network.conv.weight.grad
    assert grad is not None
    step = orthogonalized(grad.reshape(1, 4, 18)).view_as(grad)
    expected = before.conv.weight * (1 - 0.01 * 0.1) - 0.01 * 0.2 * math.sqrt(18) * step
    torch.testing.assert_close(network.conv.weight, expected)
    assert network.qkv.weight.grad is not None
    step = torch.cat([orthogonalized(part[None])[0] for part in network.qkv.weight.grad.split(8)])
    expected = before.qkv.weight * (1 - 0.01 * 0.1) - 0.01 * 0.2 * math.sqrt(8) * step
    torch.testing.assert_close(network.qkv.weight, expected)


def test_everything_else_is_adamws(network: Network) -> None:
    twin = copy.deepcopy(network)
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        other.grad = None if one.grad is None else one.grad.clone()
    Muon(muon_groups(network, 0.1), lr=0.01, betas=(0.9, 0.95)).step()
    vectors = [twin.norm.weight, twin.norm.bias, twin.qkv.bias, twin.conv.bias]
    groups = [{"params": [twin.word.weight], "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), fused=True).step()
    for name in ("word.weight", "norm.weight", "norm.bias", "qkv.bias", "conv.bias"):
        assert torch.equal(network.get_parameter(name), twin.get_parameter(name)), name
    assert not torch.equal(network.conv.weight, twin.conv.weight)


def test_a_restored_optimizer_goes_on_as_if_nothing_had_happened(network: Network) -> None:
    config = OptimConfig(optimizer="muon", batch_size=256, base_learning_rate=0.01)
    twin = copy.deepcopy(network)
    optimizer = build_optimizer(network, config)
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    twin.load_state_dict(network.state_dict())
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        other.grad = None if one.grad is None else one.grad.clone()
    again = build_optimizer(twin, config)
    again.load_state_dict(state)
    optimizer.step()
    again.step()
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), twin.parameters(), strict=True))


def test_every_parameter_is_in_one_group_only(network: Network) -> None:
    network.conv.weight.requires_grad_(False)  # a frozen part is left alone
    members = [id(parameter) for group in muon_groups(network, 0.1) for parameter in group["params"]]
    assert sorted(members) == sorted(id(each) for each in network.parameters() if each.requires_grad)
