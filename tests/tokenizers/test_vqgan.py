"""The tokenizer's networks: shapes, the released peculiarities, sizes, and what is refused."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mage import rng
from mage.tokenizers import VQGAN, QuantizerConfig, Tokenizer, VQGANConfig
from mage.tokenizers.vqgan import Decoder, Encoder, ResidualBlock
from tests.reference import models as reference


def config(
    size: tuple[int, int] = (8, 12),
    channels: int = 3,
    multipliers: tuple[int, ...] = (1, 2),
    patch_size: int = 1,
    kind: str = "vq",
) -> VQGANConfig:
    quantizer = QuantizerConfig(kind=kind, num_codes=16)  # type: ignore[arg-type]
    return VQGANConfig(
        image_size=size, channels=channels, width=8, multipliers=multipliers, blocks=1, decoder_blocks=1,
        middle_blocks=1, code_width=4, patch_size=patch_size, quantizer=quantizer,
    )  # fmt: skip


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=rng.generator(0, "noise"))


@pytest.fixture(scope="module")
def tokenizer() -> VQGAN:
    """With words that differ by more than at the start, so that images get several codes."""
    network = VQGAN(config()).eval().requires_grad_(False)
    network.quantizer.codebook.copy_(0.5 * torch.randn(16, 4, generator=rng.generator(0, "words")))
    return network


@pytest.mark.parametrize(
    ("size", "channels", "multipliers", "patch_size", "grid"),
    [
        ((8, 8), 1, (1, 2), 1, (4, 4)),
        ((8, 12), 3, (1, 2), 1, (4, 6)),
        ((12, 8), 3, (1, 1, 2), 1, (3, 2)),
        ((6, 9), 5, (1,), 3, (2, 3)),
        ((8, 20), 3, (2, 1), 2, (2, 5)),
        ((5, 7), 2, (1,), 1, (5, 7)),
    ],
)
@pytest.mark.parametrize("kind", ["vq", "normalized"])
def test_images_become_grids_of_codes_and_images_again(
    size: tuple[int, int],
    channels: int,
    multipliers: tuple[int, ...],
    patch_size: int,
    grid: tuple[int, int],
    kind: str,
) -> None:
    network = VQGAN(config(size, channels, multipliers, patch_size, kind)).eval()
    assert isinstance(network, Tokenizer)
    assert (network.channels, network.image_size, network.grid, network.num_codes) == (channels, size, grid, 16)
    images = noise(2, channels, *size)
    ids = network.encode(images)
    assert ids.shape == (2, *grid)
    assert ids.dtype == torch.int64
    assert ids.min() >= 0
    assert ids.max() < 16
    assert network.decode(ids).shape == images.shape
    output = network(images)
    assert output.reconstruction.shape == images.shape
    assert torch.equal(output.ids, ids)


def test_a_pass_in_training_reaches_every_weight() -> None:
    network = VQGAN(config())
    output = network(noise(2, 3, 8, 12))
    (output.reconstruction.square().mean() + output.quantizer_loss).backward()
    silent = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert silent == []


def test_a_decoded_image_is_what_the_decoder_makes_of_the_words_within_zero_and_one(tokenizer: VQGAN) -> None:
    ids = torch.randint(16, (2, 4, 6), generator=rng.generator(0, "ids"))
    expected = tokenizer.decoder(tokenizer.quantizer.lookup(ids))
    assert torch.equal(tokenizer.decode_raw(ids), expected)
    assert expected.min() < 0, "or nothing would be clamped"
    images = tokenizer.decode(ids)
    assert torch.equal(images, expected.clamp(0, 1))
    assert images.min() >= 0
    assert images.max() <= 1


def test_an_image_does_not_depend_on_its_batch(tokenizer: VQGAN) -> None:
    images = noise(3, 3, 8, 12)
    assert len(tokenizer.encode(images).unique()) > 1
    torch.testing.assert_close(tokenizer.encoder(images)[1:2], tokenizer.encoder(images[1:2]))


@pytest.mark.parametrize(("width_in", "width_out"), [(4, 6), (4, 4)])
def test_the_shortcut_of_a_widening_block_sees_the_blocks_own_output(width_in: int, width_out: int) -> None:
    block = ResidualBlock(width_in, width_out).requires_grad_(False)
    for norm in (block.norm1, block.norm2):
        norm.weight += 0.3 * torch.randn(norm.weight.shape, generator=rng.generator(1))
        norm.bias += 0.3 * torch.randn(norm.bias.shape, generator=rng.generator(2))
    x = torch.randn(1, width_in, 3, 4, generator=rng.generator(0))
    h = x[0].tolist()
    for norm, layer in ((block.norm1, block.conv1), (block.norm2, block.conv2)):
        # groups: the largest number of at most 32 that divides both 32 and the width
        groups = max(number for number in range(1, 33) if 32 % number == 0 and norm.num_channels % number == 0)
        h = reference.norm_silu(h, groups, norm.weight.tolist(), norm.bias.tolist(), 1e-6)
        h = reference.convolution(h, layer.weight.tolist())
    branch = torch.tensor(h)
    if block.shortcut is None:
        assert width_in == width_out
        expected = x[0] + branch
    else:
        expected = torch.tensor(reference.convolution(h, block.shortcut.weight.tolist())) + branch
    torch.testing.assert_close(block(x)[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_levels_are_joined_by_the_mean_of_four_pixels() -> None:
    encoder = Encoder(config(multipliers=(1, 1)))
    seen: list[Tensor] = []
    encoder.levels[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    encoder.levels[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encoder(noise(1, 3, 8, 12))
    before, after = seen
    for y in range(4):
        for x in range(6):
            four = before[0, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            torch.testing.assert_close(after[0, :, y, x], four.mean(dim=(1, 2)))


@torch.no_grad()
def test_a_patch_is_folded_into_channels_and_unfolded_again() -> None:
    folding = Encoder(config((8, 12), 3, (1, 2), patch_size=2))
    plain = Encoder(config((4, 6), 12, (1, 2)))
    plain.load_state_dict(folding.state_dict())
    images = noise(2, 3, 8, 12)
    folded = torch.zeros(2, 12, 4, 6)
    for channel in range(3):
        for y in range(8):
            for x in range(12):
                folded[:, 4 * channel + 2 * (y % 2) + x % 2, y // 2, x // 2] = images[:, channel, y, x]
    torch.testing.assert_close(folding(images), plain(folded))

    unfolding = Decoder(config((8, 12), 3, (1, 2), patch_size=2))
    flat = Decoder(config((4, 6), 12, (1, 2)))
    flat.load_state_dict(unfolding.state_dict())
    vectors = torch.randn(2, 4, 2, 3, generator=rng.generator(0))
    made, channels = unfolding(vectors), flat(vectors)
    for y in range(8):
        for x in range(12):
            torch.testing.assert_close(made[:, :, y, x], channels[:, 2 * (y % 2) + x % 2 :: 4, y // 2, x // 2])


def test_the_default_is_the_papers_network() -> None:
    sizes = VQGANConfig()
    with torch.device("meta"):
        network = VQGAN(sizes)
    counts = [
        sum(p.numel() for p in part.parameters()) for part in (network.encoder, network.decoder, network.quantizer)
    ]
    assert counts == list(reference.vqgan_parameters(3, 128, (1, 1, 2, 2, 4), 2, 256, 1024))
    assert sum(counts) / 1e6 == pytest.approx(54.5, abs=0.05)
    assert sizes.stride == 16
    assert sizes.grid == (16, 16)


@pytest.mark.parametrize(
    ("size", "patch_size", "message"),
    [
        ((250, 256), 1, r"\(250, 256\) is not a multiple of the stride 16; try \(256, 256\)"),
        ((8, 5), 2, r"stride 32; try \(32, 32\)"),
        ((0, 16), 1, r"\(0, 16\) is not a multiple of the stride 16; try \(16, 16\)"),
    ],
)
def test_an_impossible_size_is_refused_with_a_possible_one(
    size: tuple[int, int], patch_size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        VQGANConfig(image_size=size, patch_size=patch_size)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (noise(2, 3, 12, 8), r"images have shape \(2, 3, 12, 8\); this tokenizer takes \(N, 3, 8, 12\)"),
        (noise(2, 1, 8, 12), r"\(2, 1, 8, 12\); this tokenizer takes"),
        (noise(3, 8, 12), r"\(3, 8, 12\); this tokenizer takes \(N, 3, 8, 12\)"),
        (torch.zeros(2, 3, 8, 12, dtype=torch.uint8), r"images are torch\.uint8; give floats in \[0, 1\]"),
        (torch.zeros(2, 3, 8, 12, dtype=torch.int64), r"images are torch\.int64; .*to_float"),
    ],
)
def test_wrong_images_are_explained(tokenizer: VQGAN, images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer.check_images(images)


def test_encoding_checks_its_images(tokenizer: VQGAN) -> None:
    with pytest.raises(ValueError, match="this tokenizer takes"):
        tokenizer.encode(noise(2, 3, 16, 12))


@pytest.mark.parametrize("kind", ["vq", "normalized"])
def test_the_fingerprint_changes_with_whatever_decides_ids(kind: str) -> None:
    network = VQGAN(config(kind=kind))
    before = network.fingerprint()
    assert VQGAN(config(kind=kind)).fingerprint() != before, "other weights"
    again = VQGAN(config(kind=kind))
    again.load_state_dict(network.state_dict())
    assert again.fingerprint() == before
    for name, tensor in network.state_dict(keep_vars=True).items():
        if not name.startswith(("encoder.", "decoder.")) and name != "quantizer.codebook":
            continue  # running means decide nothing until the next step
        saved = tensor.detach().clone()
        tensor.data.view(-1)[-1] += 1e-3
        assert (network.fingerprint() == before) == name.startswith("decoder."), name
        tensor.data.copy_(saved)
    assert network.fingerprint() == before


@pytest.mark.parametrize(
    ("kind", "pinned"),
    [
        ("vq", "7c56fea1d8e8783d"),
        ("ema", "7c56fea1d8e8783d"),
        ("normalized", "0b6247cc506c847b"),
        ("simvq", "25208880183ddfe5"),
        ("fsq", "4239a874a4585fd1"),
        ("lfq", "6922f09d7f058cc1"),
    ],
)
@pytest.mark.parametrize("keep_alive", [False, True])
def test_fingerprints_are_those_of_earlier_versions(kind: str, pinned: str, keep_alive: bool) -> None:
    """Pinned at version 0.2, for all caches that were made since."""
    levels = (4, 4) if kind == "fsq" else ()
    quantizer = QuantizerConfig(kind=kind, num_codes=16, levels=levels, keep_alive=keep_alive)
    width = 2 if kind == "fsq" else 4
    network = VQGAN(replace(config(), code_width=width, quantizer=quantizer))
    for name, tensor in network.state_dict().items():
        if name != "quantizer.codebook_levels":
            tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape) % 7 - 3)
    if kind == "normalized":
        network.quantizer.codebook.copy_(torch.eye(4).repeat(4, 1))  # its words are on the unit sphere
    assert network.fingerprint() == pinned


def with_weights_of(network: VQGAN, kind: str) -> VQGAN:
    other = VQGAN(replace(network.config, quantizer=replace(network.config.quantizer, kind=kind)))
    other.load_state_dict(network.state_dict(), strict=False)
    return other


def test_the_same_words_under_another_rule_have_another_fingerprint() -> None:
    by_distance = VQGAN(config(kind="ema"))
    by_distance.quantizer.codebook.copy_(3 * noise(16, 4))
    by_angle = with_weights_of(by_distance, "normalized")
    images = noise(8, 3, 8, 12)
    assert not torch.equal(by_angle.encode(images), by_distance.encode(images))
    assert by_angle.fingerprint() != by_distance.fingerprint(), "a cache of the one must not pass for the other's"


def test_kinds_that_give_the_same_ids_share_a_fingerprint() -> None:
    spherical = VQGAN(config(kind="normalized"))
    images = noise(8, 3, 8, 12)
    for kind in ("vq", "ema"):
        other = with_weights_of(spherical, kind)
        assert torch.equal(other.encode(images), spherical.encode(images))
        assert other.fingerprint() == spherical.fingerprint()
