"""Networks of the baselines: inputs of their encoders, targets of MAE, and refused settings."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mage import rng
from mage.masking import mask_from_noise
from mage.models.contrastive import ContrastiveConfig
from mage.models.intermediates import block_numbers, intermediates
from mage.models.mae import MAE, MAEConfig
from mage.models.pixels import PatchEncoder, PatchEncoderConfig, to_patches
from mage.models.pooling import feature_width
from mage.models.simclr import SimCLR

SIZES = PatchEncoderConfig(image_size=(8, 12), channels=2, patch_size=4, width=16, depth=2, heads=2)
DECODER = MAEConfig(decoder_width=12, decoder_depth=1, decoder_heads=3)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 2, 8, 12, generator=rng.generator(0, "images"))


def test_patches_are_the_pixels_of_each_cell_in_order(images: Tensor) -> None:
    patches = to_patches(images, 4)
    assert patches.shape == (3, 6, 32)
    for row in range(2):
        for column in range(3):
            cell = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            torch.testing.assert_close(patches[:, 3 * row + column], cell.flatten(1))


def test_the_encoder_sees_only_kept_patches(images: Tensor) -> None:
    encoder = PatchEncoder(SIZES).eval()
    mask = mask_from_noise(torch.rand(3, 6, generator=rng.generator(0, "noise")), 0.5, drop_ratio=0.5)
    found = encoder(images, mask)
    assert found.shape == (3, 4, 16)
    changed = images.clone()
    pixels = mask.dropped.view(3, 1, 2, 3).repeat_interleave(4, 2).repeat_interleave(4, 3)
    changed[pixels.expand_as(changed)] = 0.123
    torch.testing.assert_close(encoder(changed, mask), found)
    assert not torch.allclose(encoder(changed), encoder(images))


def test_the_last_four_blocks_are_pooled_one_after_the_other(images: Tensor) -> None:
    encoder = PatchEncoder(replace(SIZES, depth=6)).eval()
    found = encoder.features(images, "last4")
    assert found.shape == (3, feature_width(16, "last4")) == (3, 128)
    shallow = copy.deepcopy(encoder)
    for vectors in reversed(found.split(32, dim=1)):  # without its last block, the block before is the last
        assert torch.equal(vectors, shallow.features(images, "both"))
        shallow.blocks = shallow.blocks[:-1]
    assert len(shallow.blocks) == 2


def test_features_pool_as_mage_does(images: Tensor) -> None:
    encoder = PatchEncoder(SIZES).eval()
    x = encoder(images)
    mean = x[:, 1:].mean(dim=1)
    wanted = (mean - mean.mean(dim=1, keepdim=True)) / (mean.var(dim=1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(encoder.features(images), wanted)
    assert encoder.norm is not None
    torch.testing.assert_close(encoder.features(images, "class"), encoder.norm(x)[:, 0])
    assert encoder.features(images, "both").shape == (3, 32)
    with pytest.raises(ValueError, match="takes four blocks, and this encoder has 2"):
        encoder.features(images, "last4")
    with pytest.raises(ValueError, match="takes"):
        encoder.features(images[:, :1])
    with pytest.raises(ValueError, match="multiple of the patch size"):
        PatchEncoderConfig(image_size=(30, 32), patch_size=4)


@pytest.mark.parametrize("normalize", [True, False])
def test_mae_pays_for_the_patches_it_did_not_see(images: Tensor, normalize: bool) -> None:
    network = MAE(SIZES, MAEConfig(12, 1, 3, normalize_patches=normalize)).eval()
    mask = mask_from_noise(torch.rand(3, 6, generator=rng.generator(0, "noise")), 0.5, drop_ratio=0.5)
    predicted = network(images, mask)
    terms = []
    for image in range(3):
        for position, patch in enumerate(to_patches(images, 4)[image]):
            if not mask.dropped[image, position]:
                continue
            target = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt() if normalize else patch
            terms.append((predicted[image, position] - target).square().mean())
    torch.testing.assert_close(network.loss(images, mask), torch.stack(terms).mean())


def test_mae_knows_where_a_missing_patch_lies(images: Tensor) -> None:
    """Every dropped position gets the mask token and its own place; every kept one its own vector."""
    network = MAE(SIZES, DECODER).eval()
    mask = mask_from_noise(torch.rand(3, 6, generator=rng.generator(0, "noise")), 0.5, drop_ratio=0.5)
    seen: list[Tensor] = []
    network.decoder_blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(images, mask)
    assert network.encoder.norm is not None
    kept = network.decoder_embed(network.encoder.norm(network.encoder(images, mask)))
    for image in range(3):
        rows = iter(kept[image, 1:])
        for position in range(6):
            vector = network.mask_token[0, 0] if mask.dropped[image, position] else next(rows)
            torch.testing.assert_close(seen[0][image, position + 1], vector + network.decoder_position[0, position])


def test_a_ratio_that_leaves_no_patch_is_refused() -> None:
    """Of 6 patches, ceil(0.9 x 6) are all."""
    with pytest.raises(ValueError, match=r"mask_ratio of 0\.9 leaves out all 6 patches"):
        MAE(SIZES, MAEConfig(decoder_width=8, decoder_depth=1, decoder_heads=2, mask_ratio=0.9))


def test_mae_and_simclr_learn_from_a_few_images(images: Tensor) -> None:
    torch.manual_seed(0)
    mae, simclr = MAE(SIZES, DECODER), SimCLR(SIZES, ContrastiveConfig(width=8))
    mask = mask_from_noise(torch.rand(3, 6, generator=rng.generator(0, "noise")), 0.5, drop_ratio=0.5)
    noisy = images + 0.05 * torch.randn(images.shape, generator=rng.generator(0, "noise"))

    def losses(network: MAE | SimCLR) -> list[float]:
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
        found = []
        for _ in range(60):
            loss = (
                network.loss(images, mask)
                if isinstance(network, MAE)
                else network.loss(network(images), network(noisy))
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            found.append(float(loss.detach()))
        return found

    for network in (mae, simclr):
        found = losses(network)
        assert found[-1] < 0.7 * found[0], type(network).__name__
        unused = [name for name, parameter in network.named_parameters() if parameter.grad is None]
        assert not unused


def test_intermediates_are_the_blocks_outputs(images: Tensor) -> None:
    encoder = PatchEncoder(SIZES).eval()
    every = intermediates(encoder, images, None, False, "NLC")
    assert [tuple(part.shape) for part in every] == [(3, 6, 16)] * 2
    torch.testing.assert_close(every[-1], encoder(images)[:, 1:])
    (last,) = intermediates(encoder, images, 1, True, "NCHW")
    assert last.shape == (3, 16, 2, 3)
    assert encoder.norm is not None
    torch.testing.assert_close(last.flatten(2).transpose(1, 2), encoder.norm(encoder(images))[:, 1:])
    assert block_numbers(6, 2) == {4, 5}
    assert block_numbers(6, [-1, 0]) == {0, 5}
    for wrong in (0, [6], 7):
        with pytest.raises(ValueError, match="numbered 0 to 5"):
            block_numbers(6, wrong)
    with pytest.raises(ValueError, match="without blocks"):
        block_numbers(0, None)


def test_an_image_of_another_size_is_refused_by_the_encoders_own_name() -> None:
    encoder = PatchEncoder(SIZES)
    with pytest.raises(ValueError, match="this encoder takes"):
        encoder.features(torch.rand(2, SIZES.channels, 3, 5))
