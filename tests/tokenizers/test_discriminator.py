"""Discriminators and the losses of their game, beside loops and gradients taken by hand."""

import pytest
import torch
from torch import Tensor, nn

from mage.tokenizers.discriminator import (
    DiscriminatorConfig,
    adaptive_weight,
    blur_and_halve,
    build_discriminator,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from tests.reference import gan


@pytest.mark.parametrize("kind", ["hinge", "non_saturating"])
def test_losses_by_loops(kind: str, generator: torch.Generator) -> None:
    real, fake = (2 * torch.randn(5, 1, 3, 2, generator=generator) for _ in range(2))
    assert discriminator_loss(real, fake, kind).item() == pytest.approx(  # type: ignore[arg-type]
        gan.discriminator_loss_by_loops(real, fake, kind), rel=1e-5
    )
    assert generator_loss(fake, kind).item() == pytest.approx(  # type: ignore[arg-type]
        gan.generator_loss_by_loops(fake, kind), rel=1e-5
    )


def test_chance_costs_what_the_docstring_says() -> None:
    zero = torch.zeros(4)
    assert discriminator_loss(zero, zero, "hinge").item() == 1
    assert discriminator_loss(zero, zero, "non_saturating").item() == pytest.approx(2 * 0.693147, rel=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (6, 10), (5, 7)])
def test_blur_by_loops(shape: tuple[int, int], generator: torch.Generator) -> None:
    images = torch.rand(2, 3, *shape, generator=generator)
    found = blur_and_halve(images)
    assert found.shape == (2, 3, shape[0] // 2, shape[1] // 2)
    torch.testing.assert_close(found[1, 2], gan.blur_by_loops(images[1, 2]))


@pytest.mark.parametrize(("kind", "map_shape"), [("patch", (1, 2, 6)), ("style", (1,))])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_any_size_and_any_channels(kind: str, map_shape: tuple[int, ...], channels: int) -> None:
    config = DiscriminatorConfig(kind=kind, width=8, levels=3)  # type: ignore[arg-type]
    network = build_discriminator(config, channels, (32, 64))
    verdicts = network(torch.rand(2, channels, 32, 64))
    assert verdicts.shape == (2, *map_shape)
    assert verdicts.dtype == torch.float32


def test_a_verdict_does_not_depend_on_the_batch(generator: torch.Generator) -> None:
    network = build_discriminator(DiscriminatorConfig(width=8), 3, (32, 32)).train()
    images = torch.rand(4, 3, 32, 32, generator=generator)
    torch.testing.assert_close(network(images)[:1], network(images[:1]))


@pytest.mark.parametrize("kind", ["patch", "style"])
def test_images_that_are_too_small_name_the_setting(kind: str) -> None:
    config = DiscriminatorConfig(kind=kind)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"discriminator\.levels to 2"):
        build_discriminator(config, 3, (16, 32))
    with pytest.raises(ValueError, match="train without"):
        build_discriminator(config, 3, (7, 32))


def test_r1_of_a_quadratic_verdict_by_hand(generator: torch.Generator) -> None:
    class Quadratic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.strength = nn.Parameter(torch.tensor(1.5))

        def forward(self, images: Tensor) -> Tensor:
            return self.strength * images.square().flatten(1).sum(dim=1, keepdim=True)

    network, images = Quadratic(), torch.rand(3, 2, 4, 4, generator=generator)
    penalty = r1_penalty(network, images)
    squares = images.square().flatten(1).sum(dim=1).mean().item()
    assert penalty.item() == pytest.approx(4 * 1.5**2 * squares, rel=1e-5)  # gradient of s x^2 is 2 s x
    penalty.backward()
    assert network.strength.grad is not None
    assert network.strength.grad.item() == pytest.approx(8 * 1.5 * squares, rel=1e-5)


def test_r1_of_a_real_discriminator_by_differences(generator: torch.Generator) -> None:
    network = build_discriminator(DiscriminatorConfig(kind="style", width=4, levels=1), 1, (8, 8)).double()
    network.forward = lambda x, f=network.forward: f(x).double()  # type: ignore[assignment,misc]
    images, step = torch.rand(1, 1, 8, 8, generator=generator).float(), 1e-3
    network = network.float()
    total = 0.0
    for y in range(8):
        for x in range(8):
            change = torch.zeros_like(images)
            change[0, 0, y, x] = step
            total += ((network(images + change) - network(images - change)).item() / (2 * step)) ** 2
    assert r1_penalty(network, images).item() == pytest.approx(total, rel=2e-2)


def test_adaptive_weight_by_hand(generator: torch.Generator) -> None:
    last = nn.Parameter(torch.randn(3, 2, generator=generator))
    x = torch.randn(5, 3, generator=generator)
    reconstruction, adversarial = (x @ last).square().sum(), (x @ last).sum()
    pull = 2 * x.T @ x @ last.detach()
    push = x.sum(dim=0)[:, None].expand(3, 2)
    expected = (pull.norm() / (push.norm() + 1e-4)).item()
    found = adaptive_weight(reconstruction, adversarial, last)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert not found.requires_grad
    assert adaptive_weight(reconstruction, 0 * adversarial, last, largest=50.0).item() == 50
    (reconstruction + found * adversarial).backward()  # the graph is still there
    assert last.grad is not None
