"""Starting from another model: what is copied, mapped, resampled, or left alone."""

from dataclasses import replace

import pytest
import torch

import mage
from mage.masking import Mask
from mage.models import MAGEConfig, MAGETransformer
from mage.runs.initial_weights import idle_blocks, resample_positions, start_from, word_map
from mage.tokenizers import QuantizerConfig, VQGANConfig
from mage.vocabulary import Vocabulary

SIZES = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)


def model(codes: int, side: int, seed: int) -> mage.Mage:
    tokenizer = VQGANConfig(
        image_size=(side, side), channels=1, width=8, multipliers=(1,), patch_size=2, blocks=1, decoder_blocks=1,
        middle_blocks=0, code_width=4, quantizer=QuantizerConfig(num_codes=codes),
    )  # fmt: skip
    return mage.build(SIZES, tokenizer=tokenizer, seed=seed, precision="float32")


def test_the_same_tokenizer_means_the_same_weights() -> None:
    old = model(8, 8, 0)
    new = model(8, 8, 1).transformer
    assert start_from(new, old, old.tokenizer) == []
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor, old.transformer.state_dict()[name]), name


def test_another_tokenizer_keeps_blocks_and_special_words_and_resamples_positions() -> None:
    old, new = model(8, 8, 0), model(12, 16, 1)
    before = {name: tensor.clone() for name, tensor in new.transformer.state_dict().items()}
    left = start_from(new.transformer, old, new.tokenizer)
    assert left == ["encoder.embedding.word.weight (all but 2 words)", "head.bias (all but 2 words)"] or set(left) == {
        "encoder.embedding.word.weight (all but 2 words)",
        "head.bias (all but 2 words)",
    }
    words, old_words = (net.encoder.embedding.word.weight for net in (new.transformer, old.transformer))
    assert torch.equal(words[13], old_words[9])  # mask
    assert torch.equal(words[12], old_words[8])  # null class
    assert torch.equal(words[:12], before["encoder.embedding.word.weight"][:12])
    block = "encoder.blocks.0.attn.qkv.weight"
    assert torch.equal(new.transformer.state_dict()[block], old.transformer.state_dict()[block])
    places = new.transformer.decoder_position
    assert torch.equal(places[0, 0], old.transformer.decoder_position[0, 0])
    assert not torch.equal(places, before["decoder_position"])


def test_a_deeper_network_starts_as_the_shallower_one() -> None:
    old = model(8, 8, 0)
    torch.nn.init.normal_(old.transformer.encoder.norm.weight)
    sizes = replace(SIZES, depth=3, decoder_depth=2)
    new = MAGETransformer(sizes, old.transformer.vocabulary, old.transformer.grid).eval()
    left = start_from(new, old, old.tokenizer)
    assert {name.split(".attn")[0].split(".mlp")[0].split(".norm")[0] for name in left} == {
        "encoder.blocks.1",
        "encoder.blocks.2",
        "decoder_blocks.1",
    }
    tokens = torch.randint(8, (5, 4, 4), generator=torch.Generator().manual_seed(0))
    mask = Mask.nothing_dropped(torch.rand((5, 16), generator=torch.Generator().manual_seed(1)) < 0.5)
    torch.testing.assert_close(new(tokens, mask).logits, old.transformer.eval()(tokens, mask).logits, rtol=0, atol=0)
    new(tokens, mask).logits.square().sum().backward()
    assert all(new.get_parameter(name).grad.abs().sum() > 0 for name in idle_blocks(old.transformer, new))


def test_positions_of_a_finer_grid_lie_between_those_of_the_coarse_one() -> None:
    slope = torch.linspace(0, 1, 4).repeat(4)  # grows along each row
    positions = torch.cat([torch.tensor([9.0]), slope])[:, None]
    finer = resample_positions(positions, (4, 4), (8, 8))
    assert finer.shape == (65, 1)
    assert finer[0] == 9
    rows = finer[1:, 0].view(8, 8)
    assert (rows.diff(dim=1)[:, 1:-1] > 0).all()
    torch.testing.assert_close(rows, rows[:1].expand(8, -1))
    assert torch.equal(resample_positions(positions, (4, 4), (4, 4)), positions)


@pytest.mark.parametrize("grid", [(4,), (4, 4), (4, 4, 4)])
def test_positions_are_resampled_along_each_dimension_on_its_own(grid: tuple[int, ...]) -> None:
    """A slope along one dimension stays one, and nothing leaks into the others."""
    finer = tuple(2 * side for side in grid)
    for axis in range(len(grid)):
        shape = [4 if number == axis else 1 for number in range(len(grid))]
        slope = torch.linspace(0, 1, 4).view(shape).expand(grid).flatten()
        positions = torch.cat([torch.tensor([9.0]), slope])[:, None]
        found = resample_positions(positions, grid, finer)
        assert found[0] == 9
        lines = found[1:, 0].view(finer).movedim(axis, 0).reshape(8, -1)
        torch.testing.assert_close(lines, lines[:, :1].expand_as(lines))
        assert (lines.diff(dim=0)[1:-1] > 0).all()
        assert torch.equal(resample_positions(positions, grid, grid), positions)


def test_positions_of_other_dimensions_are_refused_and_sides_of_one_do_not_count() -> None:
    positions = torch.arange(17.0)[:, None]
    for old, new in (((16,), (4, 4)), ((4, 4), (2, 2, 4)), ((2, 2, 4), (16,)), ((16,), (2, 16))):
        with pytest.raises(ValueError, match=r"cannot be resampled to one of .* as many dimensions"):
            resample_positions(positions, old, new)
    assert torch.equal(resample_positions(positions, (1, 16), (16,)), positions), "sequences of an earlier version"
    assert torch.equal(resample_positions(positions, (1, 4, 4), (4, 4)), positions)
    assert resample_positions(positions, (16,), (1, 8)).shape == (9, 1)


def test_a_grid_of_as_many_tokens_but_other_sides_is_another_grid() -> None:
    old, new = (MAGETransformer(SIZES, Vocabulary.fresh(8), grid) for grid in ((2, 8), (4, 4)))
    start_from(new, mage.Mage(None, old), None)
    expected = resample_positions(old.decoder_position, (2, 8), (4, 4))
    assert torch.equal(new.decoder_position, expected)
    with pytest.raises(ValueError, match="2 x 8 cannot be resampled to one of 16"):
        start_from(MAGETransformer(SIZES, Vocabulary.fresh(8), (16,)), mage.Mage(None, old), None)


def test_words_are_mapped_by_their_meaning() -> None:
    pairs = word_map(Vocabulary.released(), Vocabulary.fresh(1024, 1000), same_codes=True).tolist()
    assert [1100, 2024] in pairs  # the null class
    assert [2024, 2025] in pairs  # the mask
    assert [1023, 1023] in pairs
    assert len({new for _, new in pairs}) == len(pairs) == 2026


def test_a_model_that_does_not_fit_is_refused() -> None:
    other = MAGETransformer(
        MAGEConfig(8, 1, 2, decoder_width=8, decoder_depth=1, decoder_heads=2), Vocabulary.fresh(8), (4, 4)
    )
    with pytest.raises(ValueError, match="no block"):
        start_from(other, model(8, 8, 0), None)
    with pytest.raises(ValueError, match="pre-trained MAGE"):
        start_from(other, mage.Mage(model(8, 8, 0).tokenizer, None), None)
