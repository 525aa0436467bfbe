"""The network of the paper: what encoder and decoder see, the loss, sizes, and what is refused."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mage import rng
from mage.masking import Mask, mask_from_noise
from mage.models import PRESETS, MAGEConfig, MAGETransformer
from mage.models.intermediates import intermediates
from mage.models.mage import MAGEEncoder
from mage.models.presets import preset
from mage.nn.positions import sincos_positions
from mage.vocabulary import Vocabulary
from tests.reference import models as reference

SIZES = MAGEConfig(16, 2, 2, decoder_width=12, decoder_depth=1, decoder_heads=3, label_smoothing=0.2)
WORDS = Vocabulary(num_codes=11, num_classes=3, null_class_id=12, mask_id=15, size=17)
GRID = (3, 5)
LENGTH = 15


@pytest.fixture(scope="module")
def model() -> MAGETransformer:
    """With biases, norms and positions of visible size, as after training."""
    network = MAGETransformer(SIZES, WORDS, GRID).eval()
    random = rng.generator(0, "weights")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(WORDS.num_codes, (4, *GRID), generator=rng.generator(0, "ids"))


@pytest.fixture(scope="module")
def mask() -> Mask:
    """11 of 15 tokens masked, 8 of them dropped."""
    return mask_from_noise(torch.rand(4, LENGTH, generator=rng.generator(0, "noise")), 0.7)


def first_input(blocks: nn.ModuleList, call: Callable[[], object]) -> Tensor:
    """What enters the first of the blocks during a call."""
    seen: list[Tensor] = []
    handle = blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    call()
    handle.remove()
    assert len(seen) == 1
    return seen[0]


def test_the_encoder_sees_the_class_and_the_kept_tokens_at_their_own_places(
    model: MAGETransformer, ids: Tensor, mask: Mask
) -> None:
    found = first_input(model.encoder.blocks, lambda: model(ids, mask))
    assert found.shape == (4, 1 + LENGTH // 2, 16)
    embedding = model.encoder.embedding
    rows = zip(ids.flatten(1).tolist(), mask.masked.tolist(), mask.dropped.tolist(), strict=True)
    for image, (tokens, masked, dropped) in enumerate(rows):
        seen = reference.encoder_input(tokens, masked, dropped, WORDS.null_class_id, WORDS.mask_id)
        for row, (word, position) in zip(found[image], seen, strict=True):
            expected = embedding.norm(embedding.word.weight[word] + embedding.position.weight[position])
            torch.testing.assert_close(row, expected)


@pytest.mark.parametrize("dropping", [True, False])
def test_the_decoder_sees_the_class_output_wherever_a_token_was_masked(
    model: MAGETransformer, ids: Tensor, mask: Mask, dropping: bool
) -> None:
    mask = mask if dropping else Mask.nothing_dropped(mask.masked)
    latent = model(ids, mask).latent
    assert latent.shape == (4, 1 + mask.num_kept, 16)
    found = first_input(model.decoder_blocks, lambda: model(ids, mask))
    embedded, positions = model.decoder_embed(latent).tolist(), model.decoder_position[0].tolist()
    for image in range(4):
        expected = reference.decoder_input(
            embedded[image], mask.masked[image].tolist(), mask.dropped[image].tolist(), positions
        )
        torch.testing.assert_close(found[image], torch.tensor(expected))


@pytest.mark.parametrize("dropping", [True, False])
def test_masked_ids_are_not_read(model: MAGETransformer, ids: Tensor, mask: Mask, dropping: bool) -> None:
    mask = mask if dropping else Mask.nothing_dropped(mask.masked)
    expected = model(ids, mask).logits
    hidden = mask.masked.view(4, *GRID)
    for other in (ids.masked_fill(hidden, -1), ids.masked_fill(hidden, 99), torch.where(hidden, (ids + 1) % 11, ids)):
        assert torch.equal(model(other, mask).logits, expected)
    visible = torch.where(hidden, ids, (ids + 1) % 11)
    assert ((model(visible, mask).logits - expected).abs().amax(dim=2) > 1e-4).all(), (
        "the visible ones reach everything"
    )


def test_rows_and_grids_of_tokens_are_the_same_and_images_do_not_see_each_other(
    model: MAGETransformer, ids: Tensor, mask: Mask
) -> None:
    whole = model(ids, mask).decoded
    assert whole.shape == (4, LENGTH, 12)
    assert torch.equal(model(ids.flatten(1), mask).decoded, whole)
    one = Mask(masked=mask.masked[2:3], dropped=mask.dropped[2:3])
    torch.testing.assert_close(model(ids[2:3], one).decoded, whole[2:3])


@pytest.mark.parametrize("grid", [(LENGTH,), (1, 3, 5)])
def test_a_grid_of_any_dimensions_is_its_rows_and_has_the_same_weights(
    model: MAGETransformer, ids: Tensor, mask: Mask, grid: tuple[int, ...]
) -> None:
    """What a network computes from a grid depends on its number of tokens; its dimensions are those of its shapes."""
    other = MAGETransformer(SIZES, WORDS, grid).eval().requires_grad_(False)
    other.load_state_dict(model.state_dict())
    given = ids.view(4, *grid)
    assert torch.equal(other(given, mask).decoded, model(ids, mask).decoded)
    assert torch.equal(other.features(given), model.features(ids))
    every = intermediates(model.encoder, ids, None, True, "NCHW")
    for mine, maps in zip(intermediates(other.encoder, given, None, True, "NCHW"), every, strict=True):
        assert mine.shape == (4, 16, *grid)
        assert torch.equal(mine, maps.view(4, 16, *grid))
    with pytest.raises(ValueError, match=rf"this model takes \(N, {', '.join(map(str, grid))}\)"):
        other.features(ids)


def test_the_class_position_carries_the_null_class_and_no_class_word(
    model: MAGETransformer, ids: Tensor, mask: Mask
) -> None:
    words = model.encoder.embedding.word.weight
    before = model(ids, mask).latent
    saved = words.clone()
    try:
        unused = [word for word in range(WORDS.num_codes, WORDS.size) if word not in (12, 15)]
        words[unused] += 1.0
        assert torch.equal(model(ids, mask).latent, before), "class words are not looked at"
        words[WORDS.null_class_id] += torch.linspace(0, 1, 16)
        assert ((model(ids, mask).latent - before).abs().amax(dim=2) > 1e-4).all()
    finally:
        words.copy_(saved)


def test_logits_are_computed_when_asked_for_and_once(model: MAGETransformer, ids: Tensor, mask: Mask) -> None:
    sizes: list[int] = []
    handle = model.head.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[2]))
    output = model(ids, mask)
    assert sizes == [], "a pass alone scores no word"
    codes = output.code_logits
    assert output.code_logits is codes
    assert sizes == [11], "scores of the codes need no others"
    everything = output.logits
    assert output.logits is everything
    assert sizes == [11, 17]
    handle.remove()
    assert everything.shape == (4, LENGTH, 17)
    torch.testing.assert_close(codes, everything[..., :11])


def test_the_loss_is_that_of_plain_loops(model: MAGETransformer, ids: Tensor, mask: Mask) -> None:
    output = model(ids, mask)
    expected = reference.masked_cross_entropy(
        output.logits.tolist(), ids.flatten(1).tolist(), mask.masked.tolist(), WORDS.num_codes, smoothing=0.2
    )
    assert model.loss(output, ids, mask).item() == pytest.approx(expected, rel=1e-5)
    assert model.loss(output, ids.flatten(1), mask).item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_scores_masked_positions_and_no_other(model: MAGETransformer, ids: Tensor, mask: Mask) -> None:
    output = model(ids, mask)
    hidden = mask.masked.view(4, *GRID)
    loss = model.loss(output, ids, mask)
    assert torch.equal(model.loss(output, ids.masked_fill(~hidden, 0), mask), loss)
    assert not torch.equal(model.loss(output, torch.where(hidden, (ids + 1) % 11, ids), mask), loss)


def test_features_of_complete_grids_mask_nothing(model: MAGETransformer, ids: Tensor) -> None:
    found = first_input(model.encoder.blocks, lambda: model.features(ids))
    embedding = model.encoder.embedding
    tokens = embedding.norm(embedding.word.weight[ids[1].flatten()] + embedding.position.weight[1:])
    torch.testing.assert_close(found[1, 1:], tokens)
    tokens = model.encoder(ids.flatten(1))
    mean = [reference.layer_norm(row, 1e-6) for row in tokens[:, 1:].mean(dim=1).tolist()]
    torch.testing.assert_close(model.features(ids), torch.tensor(mean))
    assert model.encoder.norm is not None
    torch.testing.assert_close(model.features(ids, "class"), model.encoder.norm(tokens[:, 0]))


def test_an_encoder_without_norm_has_no_class_features(ids: Tensor) -> None:
    encoder = MAGEEncoder(SIZES, WORDS, GRID, final_norm=False)
    assert encoder.features(ids.flatten(1), "mean").shape == (4, 16)
    with pytest.raises(ValueError, match="has no norm for the class token; use pool='mean'"):
        encoder.features(ids.flatten(1), "class")


def test_dropout_is_for_training_only(ids: Tensor, mask: Mask) -> None:
    network = MAGETransformer(SIZES, WORDS, GRID).requires_grad_(False)
    assert not torch.equal(network(ids, mask).decoded, network(ids, mask).decoded)
    network.eval()
    assert torch.equal(network(ids, mask).decoded, network(ids, mask).decoded)


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_have_the_parameters_that_their_tables_say(name: str) -> None:
    sizes = preset(name)
    with torch.device("meta"):
        network = MAGETransformer(sizes, Vocabulary.released(), (16, 16))
    assert all(parameter.is_meta for parameter in network.parameters())
    counts = {part: sum(p.numel() for p in child.parameters()) for part, child in network.named_children()}
    width, decoder = sizes.width, sizes.decoder_width
    blocks = reference.blocks_parameters(sizes.depth, width)
    assert counts["encoder"] == blocks + (2025 + 257) * width + 2 * 2 * width  # and two norms
    assert counts["decoder_blocks"] == reference.blocks_parameters(sizes.decoder_depth, decoder)
    assert counts["decoder_embed"] == width * decoder + decoder
    assert counts["decoder_norm"] == 2 * decoder
    assert counts["head"] == decoder * width + width + 2 * width + 2025
    assert network.decoder_position.shape == (1, 257, decoder)


@pytest.mark.parametrize(("name", "millions"), [("base", 86), ("large", 304), ("huge", 632)])
def test_published_sizes_are_those_of_the_vit_papers(name: str, millions: float) -> None:
    # Vision Transformer, table 1; their patch embedding is the small difference.
    sizes = PRESETS[name]
    assert reference.blocks_parameters(sizes.depth, sizes.width) / 1e6 == pytest.approx(millions, rel=0.015)
    assert sizes.width / sizes.heads == (80 if name == "huge" else 64)


def test_an_unknown_size_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no size 'medium'; sizes are tiny, small, base"):
        preset("medium")


@pytest.mark.parametrize("grid", [(LENGTH,), GRID, (2, 3, 4)])
def test_positions_can_start_as_sines(grid: tuple[int, ...]) -> None:
    sizes = MAGEConfig(16, 1, 2, decoder_width=12, decoder_depth=1, decoder_heads=3, position_init="sincos")
    network = MAGETransformer(sizes, WORDS, grid)
    torch.testing.assert_close(network.decoder_position[0, 1:], sincos_positions(grid, 12))
    torch.testing.assert_close(network.encoder.embedding.position.weight[1:], 0.02 * sincos_positions(grid, 16))
    assert network.decoder_position[0, 0].abs().max() < 0.2, "the class position starts as ever"
    assert MAGETransformer(SIZES, WORDS, GRID).decoder_position.std().item() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("shape", [(4, 14), (4, 3, 4), (4, 5, 3), (15,), (4, 16), (2, 2, 3, 5)])
def test_grids_of_another_size_are_refused(model: MAGETransformer, mask: Mask, shape: tuple[int, ...]) -> None:
    ids = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"tokens have shape \(.*\); this model takes \(N, 3, 5\)"):
        model(ids, mask)
    with pytest.raises(ValueError, match="this model takes"):
        model.features(ids)


@pytest.mark.parametrize("shape", [(4, 14), (3, 15), (1, 15)])
def test_masks_of_another_size_are_refused(model: MAGETransformer, ids: Tensor, shape: tuple[int, int]) -> None:
    mask = Mask.nothing_dropped(torch.ones(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match=rf"mask \({shape[0]}, {shape[1]}\) and tokens \(4, 15\)"):
        model(ids, mask)


def test_without_a_decoder_the_head_reads_the_encoder(ids: Tensor, mask: Mask) -> None:
    network = MAGETransformer(dataclasses.replace(SIZES, decoder_depth=0), WORDS, GRID).eval()
    assert not [name for name in network.state_dict() if name.startswith("decoder")]
    seen = Mask.nothing_dropped(mask.masked)
    output = network(ids, seen)
    torch.testing.assert_close(output.decoded, output.latent[:, 1:])
    assert output.logits.shape == (4, LENGTH, WORDS.size)
    with pytest.raises(ValueError, match="nothing may be dropped"):
        network(ids, mask)
