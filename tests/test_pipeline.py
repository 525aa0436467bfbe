"""The object a user meets: generate, edit, reconstruct, features."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from torch.nn import functional

import mage
from mage import rng
from mage.models import MAGEConfig
from mage.sampling.decode import UNKNOWN
from mage.sampling.edit import box_mask, expand_canvas, grow_mask, token_mask
from mage.sampling.generator import fill
from mage.sampling.large import large_token_mask
from mage.sampling.settings import SamplingConfig
from mage.sampling.trace import GIVEN, Trace
from mage.tokenizers import QuantizerConfig, VQGANConfig

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
    return torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def test_shapes_and_ranges(model: mage.Mage, photos: torch.Tensor) -> None:
    ids = model.tokenizer.encode(photos)
    assert ids.shape == (3, 4, 6)
    assert ids.dtype == torch.int64
    made = model.generate(2, steps=3)
    assert made.shape == (2, 3, 16, 24)
    assert made.min() >= 0
    assert made.max() <= 1
    assert model.features(photos).shape == (3, 32)
    assert model.features(photos, "class").shape == (3, 32)


def test_image_k_of_a_seed_does_not_depend_on_the_batch(model: mage.Mage) -> None:
    whole = model.generate_tokens(7, steps=4, seed=3)
    assert torch.equal(whole, model.generate_tokens(7, steps=4, seed=3, batch_size=2))
    assert torch.equal(whole[5:], model.generate_tokens(2, steps=4, seed=3, first_index=5))
    assert not torch.equal(whole, model.generate_tokens(7, steps=4, seed=4))


@pytest.mark.parametrize("sampling", [{}, {"order": "halton"}, {"revisions": 1}, {"reuse": 3}], ids=str)
def test_each_step_is_told_with_the_grids_so_far_and_changes_nothing(model: mage.Mage, sampling: Any) -> None:
    seen: list[tuple[int, torch.Tensor]] = []
    trace = Trace()

    def told(step: int, tokens: torch.Tensor) -> None:
        seen.append((step, tokens))
        trace.update(step, tokens)

    tokens = model.generate_tokens(3, steps=5, seed=1, on_step=told, **sampling)
    assert torch.equal(tokens, model.generate_tokens(3, steps=5, seed=1, **sampling))
    assert [step for step, _ in seen] == [0, 1, 2, 3, 4]
    assert all(grids.shape == (3, 4, 6) for _, grids in seen)
    unknown = [(grids == UNKNOWN).sum(dim=(1, 2)) for _, grids in seen]
    assert unknown[0].tolist() == [24, 24, 24]
    assert all((before > after).all() for before, after in pairwise(unknown))
    known_in = trace.finish(tokens)
    for step, count in enumerate([*unknown, torch.zeros(3)]):
        assert torch.equal((known_in > step).sum(dim=(1, 2)), count), "later than a step is what is unknown after it"


def test_an_edit_tells_its_steps_in_windows_too_and_given_tokens_were_known_before(
    model: mage.Mage, photos: torch.Tensor
) -> None:
    trace, mask = Trace(), torch.zeros(16, 24, dtype=torch.bool)
    mask[:4, :4] = True
    model.edit(photos, mask, steps=3, on_step=trace.update)
    assert trace.known_in is not None
    later = trace.known_in != GIVEN
    assert later.sum(dim=(1, 2)).tolist() == [1, 1, 1]
    assert later[:, 0, 0].all()
    steps: list[int] = []
    wide = torch.cat([photos, photos], dim=3)
    model.edit(wide[:1], torch.ones(16, 48, dtype=torch.bool), steps=2, on_step=lambda step, tokens: steps.append(step))
    assert steps == [0, 1] * 3, "three windows of two steps"


def test_what_a_step_raises_ends_the_work_and_leaves_the_model_as_it_was(model: mage.Mage) -> None:
    assert model.transformer is not None

    def stop(step: int, tokens: torch.Tensor) -> None:
        raise TimeoutError(f"step {step}")

    model.transformer.train()
    try:
        with pytest.raises(TimeoutError, match="step 0"):
            model.generate(1, steps=3, on_step=stop)
        assert model.transformer.training
        assert torch.is_grad_enabled()
    finally:
        model.transformer.eval()


def test_features_are_normalised_means_of_the_last_block(model: mage.Mage, photos: torch.Tensor) -> None:
    ids = model.tokenizer.encode(photos)
    with torch.inference_mode():
        tokens = model.transformer.encoder(ids.flatten(1))[:, 1:]
    mean = tokens.mean(dim=1)
    expected = (mean - mean.mean(dim=1, keepdim=True)) / (mean.var(dim=1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(model.features(photos), expected)


def test_given_tokens_are_kept(model: mage.Mage) -> None:
    start = torch.full((2, 4, 6), UNKNOWN)
    start[0, :2] = 5
    start[1, 3] = 7
    filled = model.generate_tokens(2, start=start, steps=3)
    assert (filled[start != UNKNOWN] == start[start != UNKNOWN]).all()
    assert (filled >= 0).all()


def test_an_edit_redraws_every_touched_token_and_no_other(model: mage.Mage, photos: torch.Tensor) -> None:
    mask = torch.zeros(16, 24, dtype=torch.bool)
    mask[5, 9] = True  # inside token (1, 2)
    ids = model.tokenizer.encode(photos)
    edited = model.edit(photos, mask, steps=2, paste=True)
    changed = (edited != photos).any(dim=1)
    assert changed[:, 4:8, 8:12].any(dim=(1, 2)).all()
    changed[:, 4:8, 8:12] = False
    assert not changed.any(), "--paste keeps every pixel of an untouched token"
    plain = model.edit(photos, mask, steps=2)
    kept = model.tokenizer.decode(ids)
    assert not torch.equal(plain, photos)
    assert plain.shape == kept.shape


def test_nothing_marked_gives_the_image_back(model: mage.Mage, photos: torch.Tensor) -> None:
    masks = torch.zeros(3, 16, 24, dtype=torch.bool)
    assert torch.equal(model.edit(photos, masks, steps=2), photos)
    masks[1] = True
    edited = model.edit(photos, masks, steps=2)
    assert torch.equal(edited[[0, 2]], photos[[0, 2]])
    assert not torch.equal(edited[1], photos[1])


def test_one_mask_is_for_all_images_with_a_batch_dimension_too(model: mage.Mage, photos: torch.Tensor) -> None:
    mask = torch.zeros(16, 24, dtype=torch.bool)
    mask[:8] = True
    assert torch.equal(model.edit(photos, mask[None], seed=1), model.edit(photos, mask, seed=1))


@pytest.mark.parametrize("wrong", [-1, 99999])
def test_ids_that_are_no_codes_have_no_picture(model: mage.Mage, wrong: int) -> None:
    """On a GPU they would end the process."""
    ids = torch.zeros(1, *model.tokenizer.grid, dtype=torch.int64)
    ids[0, 0, 0] = wrong
    with pytest.raises(ValueError, match="have no picture"):
        model.decode_tokens(ids)


def test_an_edit_of_one_image_needs_no_batch(model: mage.Mage, photos: torch.Tensor) -> None:
    mask = box_mask((16, 24), (0, 0, 8, 8))
    assert torch.equal(model.edit(photos[0], mask, steps=2), model.edit(photos[:1], mask, steps=2)[0])


def test_reconstruct_without_mask_is_the_tokenizer_alone(model: mage.Mage, photos: torch.Tensor) -> None:
    torch.testing.assert_close(
        model.reconstruct(photos, mask_ratio=0.0), model.tokenizer.decode(model.tokenizer.encode(photos))
    )
    assert not torch.equal(model.reconstruct(photos, mask_ratio=0.75), model.reconstruct(photos, mask_ratio=0.0))


def test_masks_grow_with_the_ratio(model: mage.Mage, photos: torch.Tensor) -> None:
    ids = model.tokenizer.encode(photos)
    few, many = (model.mask_tokens(ids, ratio, 0) == UNKNOWN for ratio in (0.3, 0.8))
    assert few[0].sum() == 8  # ceil(0.3 x 24)
    assert (many | ~few).all()


def test_save_and_load_give_the_same_model(model: mage.Mage, photos: torch.Tensor, tmp_path: Path) -> None:
    model.save(tmp_path / "saved")
    again = mage.load(tmp_path / "saved", precision="float32")
    assert torch.equal(model.generate(2, steps=2), again.generate(2, steps=2))
    assert torch.equal(model.features(photos), again.features(photos))


def test_a_recipes_sampler_settings_are_the_models_defaults(model: mage.Mage) -> None:
    tuned = mage.Mage(
        model.tokenizer,
        model.transformer,
        recipe={"sampling": {"steps": 2, "token_temperature": 0.0}},
        precision="float32",
    )
    assert torch.equal(tuned.generate_tokens(1), model.generate_tokens(1, steps=2, token_temperature=0))


@contextmanager
def as_users_run_it() -> Iterator[None]:
    """Without the checks of shapes and types that tests switch on, which would complain first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, photos: model.features(photos[:, :2]), "give|channels"),
        (lambda model, photos: model.features(photos[..., :12]), "the model takes 24 x 16"),
        (lambda model, photos: model.features(photos * 255), "divide by 255, or give uint8"),
        (lambda model, photos: model.features(photos * float("nan")), r"\[0, 1\]|NaN"),
        (lambda model, photos: model.features(photos[:0]), "there are no images"),
        (lambda model, photos: model.features(photos, "max"), "pool must be"),
        (lambda model, photos: model.edit(photos, torch.full((16, 24), -2.0)), "the mask runs from"),
        (lambda model, photos: model.edit(photos, torch.zeros(16, 16, dtype=torch.bool)), "the mask is"),
        (lambda model, photos: model.edit(photos, torch.zeros(2, 16, 24, dtype=torch.bool)), "2 masks for 3 images"),
        (lambda model, photos: model.generate(0), "must be positive"),
        (lambda model, photos: model.generate(1, start=torch.zeros(1, 3, 3, dtype=torch.int64)), "this model takes"),
        (lambda model, photos: model.generate(1, start=torch.full((1, 4, 6), 99)), "codes below 32"),
        (lambda model, photos: model.classify(photos), "no classifier"),
        (lambda model, photos: mage.build("gigantic"), "there is no size"),
        (lambda model, photos: mage.build("tiny", image_size=250), "not a multiple of the stride"),
    ],
)
def test_mistakes_are_explained(model: mage.Mage, photos: torch.Tensor, call, message: str) -> None:  # type: ignore[no-untyped-def]
    with as_users_run_it(), pytest.raises(ValueError, match=message):
        call(model, photos)


def test_the_networks_have_no_dead_parameters(photos: torch.Tensor) -> None:
    fresh = mage.build(SIZES, tokenizer=TOKENIZER, precision="float32")
    transformer = fresh.transformer.requires_grad_(True)
    ids = fresh.tokenizer.encode(photos)
    mask = mage.mask_from_noise(torch.rand(3, 24, generator=torch.Generator().manual_seed(1)), 0.7)
    transformer.loss(transformer(ids, mask), ids, mask).backward()
    assert [name for name, parameter in transformer.named_parameters() if parameter.grad is None] == []


def test_token_mask_marks_what_a_pixel_touches() -> None:
    pixels = torch.zeros(1, 8, 8, dtype=torch.bool)
    pixels[0, 3, 4] = True
    assert token_mask(pixels, (2, 2)).tolist() == [[[False, True], [False, False]]]
    with pytest.raises(ValueError, match="a mask of pixels needs a grid of rows and columns, not one of 2 x 2 x 2"):
        token_mask(pixels, (2, 2, 2))


def test_expanding_puts_the_image_where_the_margins_say() -> None:
    canvas, mask = expand_canvas(torch.zeros(1, 4, 4), (1, 2, 3, 0))
    assert canvas.shape == (1, 6, 8)
    assert not mask[2:6, 1:5].any()
    assert mask.sum() == 6 * 8 - 16


@pytest.mark.parametrize(("asked", "on_meta"), [("auto", "bf16"), ("float32", "float32"), ("bf16", "bf16")])
def test_auto_precision_is_chosen_anew_for_another_device(
    monkeypatch: pytest.MonkeyPatch, asked: str, on_meta: str
) -> None:
    monkeypatch.setattr("mage.device.bf16_is_fast", lambda device: device.type == "meta")
    model = mage.build(SIZES, tokenizer=TOKENIZER, precision=asked)
    assert model.precision == ("float32" if asked == "auto" else asked)
    monkeypatch.setattr("mage.device.resolve_device", lambda device: torch.device(device))
    assert model.to("meta").precision == on_meta


def test_bfloat16_is_what_autocast_gives_and_leaves_the_weights_alone(photos: torch.Tensor) -> None:
    model = mage.build(SIZES, tokenizer=TOKENIZER, precision="bf16")
    ids = model.encode(photos)
    made = model.generate_tokens(2, steps=3, seed=1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ids, model.tokenizer.encode(photos))
        assert torch.equal(model.features(photos), model.transformer.features(ids))
        assert torch.equal(model.decode_tokens(ids), model.tokenizer.decode(ids))
        expected = fill(
            model.transformer, torch.full((2, 24), UNKNOWN), indices=range(2), seed=1, stream="sample",
            settings=SamplingConfig(steps=3), batch_size=2,
        )  # fmt: skip
        assert torch.equal(made.flatten(1), torch.cat(list(expected)))
    assert {weight.dtype for weight in model.transformer.parameters()} == {torch.float32}
    with torch.no_grad():
        model.transformer.head.bias[:5].fill_(100.0)
    assert (model.generate_tokens(2, steps=3, seed=1) < 5).all(), "weights that a user changes count"


def test_reconstructing_drops_nothing_whatever_the_recipe_samples_with(photos: torch.Tensor) -> None:
    plain = mage.build(SIZES, tokenizer=TOKENIZER, precision="float32")
    other = mage.build(SIZES, tokenizer=TOKENIZER, precision="float32")
    other.recipe = {
        "sampling": {"encoder_keep": 0.5, "revisions": 2, "revise_share": 0.5, "token_temperature_end": 2.0, "reuse": 4,
                     "order": "halton"}
    }  # fmt: skip
    for steps in (1, 4):
        assert torch.equal(plain.reconstruct(photos, steps=steps), other.reconstruct(photos, steps=steps))
    assert not torch.equal(plain.generate(2, steps=3), other.generate(2, steps=3))


def test_starts_of_any_integer_type_are_completed(model: mage.Mage) -> None:
    start = torch.full((2, 4, 6), UNKNOWN)
    start[0, 1] = 3
    expected = model.generate_tokens(2, start=start, steps=3)
    assert torch.equal(model.generate_tokens(2, start=start.int(), steps=3), expected)


def test_variations_change_more_the_stronger_they_are(model: mage.Mage, photos: torch.Tensor) -> None:
    plain = model.decode_tokens(model.encode(photos))
    assert torch.equal(model.variations(photos, strength=0.0), plain)
    moved = [float((model.variations(photos, strength=s, steps=4) - plain).abs().mean()) for s in (0.25, 0.5, 1.0)]
    assert 0 < moved[0] < moved[1] < moved[2]
    alone = model.variations(photos[0], strength=1.0, steps=4, seed=5)
    assert torch.equal(alone, model.generate(1, steps=4, seed=5)[0]), "all of it anew is a new image"


def test_large_images_are_edited_in_windows(model: mage.Mage) -> None:
    large = torch.rand(2, 3, 30, 50, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(2, 30, 50, dtype=torch.bool)
    mask[0, 8:20, 20:37] = True
    counts: list[int] = []
    edited = model.edit(large, mask, paste=True, steps=3, seed=2, on_tokens=counts.append)
    assert sum(counts) == sum(int(large_token_mask(one, (4, 6), (4, 4)).sum()) for one in mask) > max(counts)
    assert edited.shape == large.shape
    assert torch.equal(edited[1], large[1]), "nothing marked"
    anew = torch.zeros_like(mask[0])
    anew[8:20, 20:40] = True  # tokens of 4 x 4 pixels
    assert torch.equal(edited[0, :, ~anew], large[0, :, ~anew])
    assert (edited[0, :, anew] != large[0, :, anew]).any(dim=0).float().mean() > 0.9
    assert torch.equal(edited, model.edit(large, mask, paste=True, steps=3, seed=2))
    assert not torch.equal(edited, model.edit(large, mask, paste=True, steps=3, seed=3))
    whole = model.edit(large[:1], torch.ones(30, 50, dtype=torch.bool), steps=2)
    assert whole.shape == (1, 3, 30, 50)
    with pytest.raises(ValueError, match=r"the model takes 24 x 16 or larger"):
        model.edit(torch.rand(1, 3, 12, 30), torch.ones(12, 30, dtype=torch.bool))


def test_a_grown_mask_reaches_as_far_as_asked() -> None:
    mask = box_mask((9, 9), (4, 4, 5, 5))
    assert torch.equal(grow_mask(mask, 2), box_mask((9, 9), (2, 2, 7, 7)))
    assert torch.equal(grow_mask(mask, 0), mask)
    marked = torch.rand(13, 21, generator=rng.generator(0)) < 0.02
    for pixels in (1, 3, 30):
        pooled = functional.max_pool2d(marked[None, None].float(), 2 * pixels + 1, stride=1, padding=pixels)
        assert torch.equal(grow_mask(marked, pixels), pooled[0, 0] > 0)
