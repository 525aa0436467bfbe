"""I-JEPA: how blocks lie, what each part of the network sees, the loss, and which weights learn."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mage import rng
from mage.models.ijepa import IJEPA, BlockConfig, Blocks, IJEPAConfig, Predictor, block_size, draw_blocks
from mage.models.pixels import PatchEncoderConfig
from tests.reference import ijepa as reference

SIZES = PatchEncoderConfig(image_size=(16, 24), channels=2, patch_size=4, width=16, depth=2, heads=2)
CONFIG = IJEPAConfig(predictor_width=8, predictor_depth=2)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 2, 16, 24, generator=rng.generator(0, "images"))


@pytest.fixture
def network() -> IJEPA:
    torch.manual_seed(0)
    network = IJEPA(SIZES, CONFIG).eval()
    for parameter in network.target_encoder.parameters():  # as after some training: not the context encoder's weights
        parameter.add_(0.02 * torch.randn(parameter.shape))
    return network


@pytest.fixture
def blocks() -> Blocks:
    return draw_blocks(BlockConfig(), 3, (4, 6), rng.generator(0, "blocks"))


@given(
    height=st.integers(3, 16),
    width=st.integers(3, 16),
    count=st.integers(1, 12),
    targets=st.integers(1, 5),
    least=st.sampled_from([0.0, 0.15, 0.3]),
    seed=st.integers(0, 10_000),
)
def test_blocks_are_rectangles_of_one_size_and_contexts_equally_long_and_apart_from_them(
    height: int, width: int, count: int, targets: int, least: float, seed: int
) -> None:
    grid = (height, width)
    config = BlockConfig(targets=targets, least_context=least)
    context, places = draw_blocks(config, count, grid, rng.generator(seed))
    assert context.shape == (count, height * width)
    assert places.shape[:2] == (count, targets)
    sizes = {reference.is_block(grid, patches) for image in places.tolist() for patches in image}
    assert len(sizes) == 1
    assert None not in sizes
    assert len(set(context.sum(dim=1).tolist())) == 1
    assert context.any()
    for seen, image in zip(context, places.tolist(), strict=True):
        assert not set(seen.nonzero()[:, 0].tolist()) & {patch for patches in image for patch in patches}


@given(scale=st.floats(0.1, 0.3), aspect=st.floats(0.75, 1.5), side=st.integers(8, 40))
def test_a_block_has_its_share_of_the_image_and_its_aspect(scale: float, aspect: float, side: int) -> None:
    height, width = block_size((side, side), scale, aspect)
    assert abs(height - math.sqrt(scale * aspect) * side) <= 0.5
    assert abs(width - math.sqrt(scale / aspect) * side) <= 0.5


def test_sizes_and_places_vary_as_published() -> None:
    """Of 14 x 14 patches a target has 15 to 20 %, up to rounding; each place has its chance; blocks of a step agree."""
    sizes, tops, shares = set(), set(), []
    for step in range(200):
        context, targets = draw_blocks(BlockConfig(least_context=0), 4, (14, 14), rng.generator(0, step))
        size = reference.is_block((14, 14), targets[0, 0].tolist())
        assert size is not None
        assert 0.11 < targets.shape[2] / 196 < 0.24
        assert 0.6 < size[0] / size[1] < 1.8
        sizes.add(size)
        tops |= set((targets[..., 0] // 14).flatten().tolist())
        shares.append(float(context.float().mean()))
    assert len(sizes) >= 6
    assert tops >= set(range(9))
    assert max(shares) < 0.85, "the targets are cut out of the context"


def test_an_image_with_too_short_a_context_draws_again_and_moves_no_other() -> None:
    plain, redrawn = (
        draw_blocks(BlockConfig(least_context=least), 64, (8, 8), rng.generator(20)) for least in (0.0, 0.25)
    )
    assert int(plain.context[0].sum()) == 10
    assert int(redrawn.context[0].sum()) == 16
    moved = (plain.targets != redrawn.targets).flatten(1).any(dim=1)
    assert moved.sum() == 6


def test_targets_that_would_cover_everything_are_laid_upon_each_other() -> None:
    config = BlockConfig(targets=400, least_context=0)
    context, targets = draw_blocks(config, 4, (3, 3), rng.generator(0))
    assert context.any(dim=1).all()
    assert (targets == targets[:, :1]).all()


def test_blocks_without_context_and_invalid_ranges_are_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing of a context block"):
        draw_blocks(BlockConfig(), 2, (1, 1), rng.generator(0))
    with pytest.raises(ValueError, match="target_scale needs 0 < smallest <= largest <= 1"):
        BlockConfig(target_scale=(0.2, 0.1))
    with pytest.raises(ValueError, match="targets must be at least 1 block"):
        BlockConfig(targets=0)
    with pytest.raises(ValueError, match="least_context"):
        BlockConfig(least_context=1.0)
    with pytest.raises(ValueError, match="momentum"):
        IJEPAConfig(momentum=1.1)


def test_the_loss_agrees_with_plain_loops(network: IJEPA, images: Tensor, blocks: Blocks) -> None:
    mask = blocks.mask
    assert network.context_encoder.norm is not None
    assert network.target_encoder.norm is not None
    with torch.no_grad():
        context = network.context_encoder.norm(network.context_encoder(images, mask))[:, 1:]
        predicted = network.predictor(context, mask.kept_index, blocks.targets)
        target = network.target_encoder.norm(network.target_encoder(images))[:, 1:]
        found = network(images, mask, blocks.targets)
    wanted = reference.loss(predicted.tolist(), target.tolist(), blocks.targets.tolist())
    assert float(found) == pytest.approx(wanted, rel=1e-4)


def test_the_predictor_sees_the_context_and_one_block_at_its_places(blocks: Blocks) -> None:
    torch.manual_seed(0)
    predictor, kept = Predictor(SIZES, CONFIG).eval(), blocks.mask.kept_index
    context = torch.randn(3, kept.shape[1], 16, generator=rng.generator(1))
    seen: list[Tensor] = []
    predictor.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    whole = predictor(context, kept, blocks.targets)
    rows = seen[0].view(3, 4, kept.shape[1] + blocks.targets.shape[2], 8)
    for image in range(3):
        for number in range(4):
            wanted = [
                predictor.embed(vector) + predictor.position[place]
                for vector, place in zip(context[image], kept[image], strict=True)
            ]
            wanted += [predictor.mask_token + predictor.position[place] for place in blocks.targets[image, number]]
            torch.testing.assert_close(rows[image, number], torch.stack(wanted))
    alone = predictor(context, kept, blocks.targets[:, 2:3])
    torch.testing.assert_close(whole[:, 2:3], alone)


def test_targets_see_the_whole_image_and_the_context_encoder_only_its_patches(
    network: IJEPA, images: Tensor, blocks: Blocks
) -> None:
    changed = images.clone()
    hidden = (~blocks.context).view(3, 1, 4, 6).repeat_interleave(4, 2).repeat_interleave(4, 3)
    changed[hidden.expand_as(changed)] = 0.123
    torch.testing.assert_close(
        network.context_encoder(changed, blocks.mask), network.context_encoder(images, blocks.mask)
    )
    assert not torch.allclose(network.targets(changed, blocks.targets), network.targets(images, blocks.targets))
    assert network.encoder is network.target_encoder


def test_the_gradient_reaches_every_weight_but_the_target_encoders(
    network: IJEPA, images: Tensor, blocks: Blocks
) -> None:
    network.requires_grad_(True)  # even then
    network(images, blocks.mask, blocks.targets).backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == name.startswith("target_encoder"), name


def test_the_target_encoder_starts_as_the_context_encoder_and_follows_it() -> None:
    torch.manual_seed(0)
    network = IJEPA(SIZES, CONFIG)
    pairs = list(zip(network.target_encoder.parameters(), network.context_encoder.parameters(), strict=True))
    assert all(torch.equal(target, current) and target is not current for target, current in pairs)
    assert not any(target.requires_grad for target, _ in pairs)
    before = [target.clone() for target, _ in pairs]
    with torch.no_grad():
        for _, current in pairs:
            current.add_(torch.randn(current.shape))
    network.follow(0.75)
    for old, (target, current) in zip(before, pairs, strict=True):
        torch.testing.assert_close(target, 0.75 * old + 0.25 * current)
