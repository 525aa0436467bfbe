"""`Mage.surprise` and `Mage.attention`: independent of the batch, and errors for what cannot be done."""

from dataclasses import replace

import pytest
import torch

import mage
from mage.models import MAGEConfig
from mage.pipeline.describing import DRAWS, PARTS
from mage.sampling.code_length import code_length
from mage.sampling.surprise import surprise
from mage.tokenizers import QuantizerConfig, VQGANConfig
from mage.vocabulary import Vocabulary

TOKENIZER = VQGANConfig(
    image_size=(16, 24), channels=3, width=8, multipliers=(1, 2), patch_size=2, blocks=1, decoder_blocks=1,
    middle_blocks=0, code_width=4, quantizer=QuantizerConfig(kind="normalized", num_codes=32),
)  # fmt: skip
SIZES = MAGEConfig(32, 2, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)


@pytest.fixture(scope="module")
def model() -> mage.Mage:
    return mage.build(SIZES, tokenizer=TOKENIZER, precision="float32")


@pytest.fixture
def photos() -> torch.Tensor:
    return torch.rand(5, 3, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sizes", [SIZES, replace(SIZES, decoder_depth=0)], ids=["mage", "maskgit"])
def test_a_map_has_one_number_of_nats_per_token(sizes: MAGEConfig, channels: int) -> None:
    model = mage.build(sizes, tokenizer=replace(TOKENIZER, channels=channels), precision="float32")
    maps = model.surprise(torch.rand(2, channels, 16, 24))
    assert maps.shape == (2, 4, 6)
    assert (maps > 0).all()
    assert abs(float(maps.mean()) - torch.tensor(32.0).log()) < 0.5, (
        "an untrained network finds 32 codes equally likely"
    )


def test_a_map_depends_on_neither_batch_nor_place_but_on_seed_and_draws(model: mage.Mage, photos: torch.Tensor) -> None:
    whole = model.surprise(photos, parts=3, draws=2, seed=1)
    torch.testing.assert_close(model.surprise(photos, parts=3, draws=2, seed=1, batch_size=2), whole)
    torch.testing.assert_close(model.surprise(photos.flip(0), parts=3, draws=2, seed=1).flip(0), whole)
    torch.testing.assert_close(model.surprise(photos[3:4], parts=3, draws=2, seed=1), whole[3:4])
    assert not torch.allclose(model.surprise(photos, parts=3, draws=2, seed=2), whole)
    assert not torch.allclose(model.surprise(photos, parts=3, draws=1, seed=1), whole)


def test_the_map_of_an_image_is_that_of_its_tokens_in_evaluation_mode(model: mage.Mage, photos: torch.Tensor) -> None:
    assert model.transformer is not None
    tokens = model.encode(photos)
    with torch.no_grad():
        flat = surprise(model.transformer.eval(), tokens.flatten(1), parts=PARTS, draws=DRAWS, seed=0)
    expected, entropies = (part.view(5, 4, 6) for part in flat)
    model.transformer.train()
    torch.testing.assert_close(model.surprise(photos), expected)
    assert model.transformer.training
    model.transformer.eval()
    torch.testing.assert_close(model.surprise_of_tokens(tokens), expected)
    torch.testing.assert_close(model.surprise_and_expected(tokens).expected, entropies)


def test_bfloat16_scores_without_dropout_too(model: mage.Mage, photos: torch.Tensor) -> None:
    fast = mage.Mage(model.tokenizer, model.transformer, precision="bf16")
    assert fast.transformer is not None
    tokens = model.encode(photos)
    fast.transformer.train()
    torch.testing.assert_close(fast.surprise_of_tokens(tokens), model.surprise_of_tokens(tokens), atol=0.05, rtol=0)
    fast.transformer.eval()


@pytest.mark.parametrize("place", ["encoder", "decoder"])
def test_classes_are_one_for_all_or_one_per_image(place: str) -> None:
    words = Vocabulary.fresh(32, 3 if place == "encoder" else 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = mage.MAGETransformer(replace(SIZES, num_classes=3, class_input=place), words, (4, 6))
        if place == "decoder":
            torch.nn.init.normal_(network.class_embedding.weight)
    model = mage.Mage(None, network.eval(), precision="float32")
    tokens = torch.randint(32, (4, 4, 6), generator=torch.Generator().manual_seed(0))
    each = model.surprise_of_tokens(tokens, classes=[0, 1, -1, 2], batch_size=3)
    for row, number in enumerate((0, 1, -1, 2)):
        torch.testing.assert_close(each[row], model.surprise_of_tokens(tokens, classes=number)[row])
    torch.testing.assert_close(each[2], model.surprise_of_tokens(tokens)[2])
    assert not torch.allclose(each[0], model.surprise_of_tokens(tokens)[0])
    with pytest.raises(ValueError, match="3 classes for 4 images"):
        model.surprise_of_tokens(tokens, classes=[0, 1, 2])


def test_sequences_and_clips_are_scored_by_their_tokens() -> None:
    for grid in ((9,), (2, 3, 4)):
        network = mage.MAGETransformer(SIZES, Vocabulary.fresh(12), grid).eval()
        model = mage.Mage(None, network, precision="float32")
        ids = torch.randint(12, (2, *grid), generator=torch.Generator().manual_seed(0))
        assert model.surprise_of_tokens(ids, parts=3).shape == ids.shape
        with pytest.raises(ValueError, match="no tokenizer"):
            model.surprise(torch.rand(1, 3, 16, 24))


def test_code_length_is_one_number_for_a_grid_and_sees_as_much_as_the_sampler() -> None:
    network = mage.MAGETransformer(SIZES, Vocabulary.fresh(12), (9,)).eval().requires_grad_(False)
    for number, parameter in enumerate(network.parameters()):  # so that tokens matter to one another
        parameter.copy_(0.4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    ids = torch.randint(12, (3, 9), generator=torch.Generator().manual_seed(0))
    expected = {keep: code_length(network, ids, passes=4, encoder_keep=keep, seed=1) for keep in (0.5, 1.0)}
    assert not torch.allclose(expected[0.5], expected[1.0])
    for keep, nats in expected.items():
        model = mage.Mage(None, network, recipe={"sampling": {"encoder_keep": keep}}, precision="float32")
        torch.testing.assert_close(model.code_length_of_tokens(ids, passes=4, seed=1, batch_size=2), nats)
    with pytest.raises(ValueError, match=r"tokens run from -1 to .*complete grids"):
        model.code_length_of_tokens(torch.full((1, 9), -1))


def test_what_cannot_be_scored_is_refused_in_words(model: mage.Mage, photos: torch.Tensor) -> None:
    tokens = model.encode(photos)
    with pytest.raises(ValueError, match=r"this model takes \(N, 4, 6\)"):
        model.surprise_of_tokens(tokens[:, :3])
    with pytest.raises(ValueError, match=r"tokens run from -1 to .*complete grids"):
        model.surprise_of_tokens(torch.full((1, 4, 6), -1))
    with pytest.raises(ValueError, match="codes below 32"):
        model.surprise_of_tokens(torch.full((1, 4, 6), 32))
    with pytest.raises(ValueError, match="parts must lie between 2 and the 24 tokens of a grid of 4 x 6, not 1"):
        model.surprise(photos, parts=1)
    with pytest.raises(ValueError, match="draws"):
        model.surprise(photos, draws=0)
    with pytest.raises(ValueError, match="batch size"):
        model.surprise(photos, batch_size=0)
    with pytest.raises(ValueError, match="batch is empty"):
        model.surprise_of_tokens(tokens[:0])
    with pytest.raises(ValueError, match="without classes"):
        model.surprise(photos, classes=0)
    with pytest.raises(ValueError, match="without a transformer"):
        mage.Mage(model.tokenizer, None).surprise(photos)


@pytest.mark.parametrize("block", [0, 1, -1])
def test_attention_is_what_the_block_mixes_its_positions_by(model: mage.Mage, photos: torch.Tensor, block: int) -> None:
    weights = model.attention(photos, block)
    assert weights.shape == (5, 2, 25, 25)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(5, 2, 25))
    encoder = model.transformer.encoder
    layer, seen = encoder.blocks[block].attn, []
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    try:
        model.features(photos)
    finally:
        hook.remove()
    ((x, output),) = seen
    with torch.no_grad():
        values = layer.qkv(x).reshape(5, 25, 3, 2, 16)[:, :, 2].transpose(1, 2)
        mixed = layer.proj((weights @ values).transpose(1, 2).reshape(5, 25, 32))
    torch.testing.assert_close(mixed, output)


def test_attention_of_a_block_that_is_not_there_is_refused(model: mage.Mage, photos: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="blocks are numbered 0 to 1"):
        model.attention(photos, 2)
