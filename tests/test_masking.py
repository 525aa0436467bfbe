"""Mask ratios, masks and the decoding schedule."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from mage import rng
from mage.masking import Mask, MaskRatioConfig, mask_from_noise, num_still_masked, random_mask, sample_mask_ratio
from tests.reference import masking as reference


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(1, 40),
    ratio=st.floats(0, 1),
    drop=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_masks_agree_with_plain_loops(length: int, ratio: float, drop: float, seed: int) -> None:
    noise = torch.rand(3, length, generator=rng.generator(seed))
    mask = mask_from_noise(noise, ratio, drop_ratio=drop)
    masked, dropped = reference.mask_from_noise(noise.tolist(), ratio, drop)
    assert mask.masked.tolist() == masked
    assert mask.dropped.tolist() == dropped


def test_the_encoder_always_sees_half_of_the_tokens() -> None:
    for step in range(50):
        mask = random_mask(MaskRatioConfig(), 4, 49, rng.generator(0, step))
        assert mask.num_kept == 49 // 2
        assert (mask.masked | ~mask.dropped).all(), "dropped tokens are masked ones"
        assert mask.kept_index.diff(dim=1).min() > 0, "kept tokens stay in order"


def test_one_ratio_per_step_or_per_image() -> None:
    shared = random_mask(MaskRatioConfig(), 64, 100, rng.generator(0)).masked.sum(dim=1)
    assert len(shared.unique()) == 1
    own = random_mask(MaskRatioConfig(per_image=True), 64, 100, rng.generator(0)).masked.sum(dim=1)
    assert len(own.unique()) > 10


def test_mask_ratio_has_the_truncated_normal_distribution() -> None:
    ratio = sample_mask_ratio(MaskRatioConfig(), 200_000, rng.generator(1))
    assert ratio.min() >= 0.5
    assert ratio.max() <= 1.0
    assert ratio.mean().item() == pytest.approx(0.694, abs=2e-3)  # docs/method.md, Masking and dropping
    stats = pytest.importorskip("scipy.stats")
    exact = stats.truncnorm((0.5 - 0.55) / 0.25, (1 - 0.55) / 0.25, loc=0.55, scale=0.25)
    assert stats.kstest(ratio.numpy(), exact.cdf).pvalue > 1e-3


def test_ratios_per_image_reach_their_image() -> None:
    mask = mask_from_noise(torch.rand(2, 10, generator=rng.generator(0)), torch.tensor([0.5, 0.9]))
    assert mask.masked.sum(dim=1).tolist() == [5, 9]
    assert mask.dropped.sum(dim=1).tolist() == [5, 5]


def test_spans_are_masked_as_wholes_but_for_one() -> None:
    config = MaskRatioConfig(distribution="uniform", low=0.25, per_image=True, spans=(1, 4), span_share=1.0)
    masked = random_mask(config, 200, 23, rng.generator(0)).masked  # 1 + 4 four times, and 1 + 2 at the end
    spans = masked.split([1, 4, 1, 4, 1, 4, 1, 4, 1, 2], dim=1)
    parts = sum((span.any(dim=1) & ~span.all(dim=1)).long() for span in spans)
    assert parts.max() <= 1, "only the last span that the ratio allows is masked in part"
    assert torch.stack([span.all(dim=1) for span in spans]).float().mean(dim=1).min() > 0.3, "every span has its turn"
    plain = random_mask(MaskRatioConfig(distribution="uniform", low=0.25, per_image=True), 200, 23, rng.generator(0))
    assert torch.equal(masked.sum(dim=1), plain.masked.sum(dim=1)), "the ratio is what it was"


def test_a_share_of_images_is_masked_by_spans_and_the_others_as_ever() -> None:
    settings = {"distribution": "uniform", "low": 0.25, "per_image": True}
    plain = random_mask(MaskRatioConfig(**settings), 1000, 20, rng.generator(0))
    mixed = random_mask(MaskRatioConfig(**settings, spans=(10,), span_share=0.3), 1000, 20, rng.generator(0))
    same = (plain.masked == mixed.masked).all(dim=1).float().mean().item()
    assert same == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize(("spans", "share"), [((0, 3), 0.5), ((3,), 1.5)])
def test_impossible_spans_are_refused(spans: tuple[int, ...], share: float) -> None:
    with pytest.raises(ValueError, match="spans are lengths of at least 1 and span_share lies in"):
        MaskRatioConfig(spans=spans, span_share=share)


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_impossible_ratios_are_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        mask_from_noise(torch.rand(1, 4), ratio)


def test_masked_tokens_are_numbered_through_the_batch() -> None:
    mask = random_mask(MaskRatioConfig(per_image=True), 5, 12, rng.generator(0))
    places = [row * 12 + column for row in range(5) for column in range(12) if mask.masked[row, column]]
    assert mask.masked_index.tolist() == places


def test_a_moved_mask_keeps_its_counts() -> None:
    mask = random_mask(MaskRatioConfig(per_image=True), 5, 12, rng.generator(0))
    moved = mask.to(torch.device("meta"))  # a device that cannot be asked, as a GPU should not be
    assert moved.num_kept == mask.num_kept == 6
    assert moved.kept_index.shape == (5, 6)
    assert (moved.masked.shape, moved.dropped.dtype) == ((5, 12), torch.bool)
    assert mask.to(torch.device("cpu")) is mask


def test_a_mask_is_moved_by_one_copy() -> None:
    mask = random_mask(MaskRatioConfig(per_image=True), 5, 12, rng.generator(0))
    _ = mask.kept_index
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        mask.to(torch.device("meta"))
    assert [event.count for event in profiler.key_averages() if event.key == "aten::_to_copy"] == [1]


def test_images_that_keep_different_numbers_of_tokens_cannot_share_a_batch() -> None:
    masked = torch.tensor([[True, True], [True, False]])
    with pytest.raises(ValueError, match="must be equal"):
        _ = Mask(masked=masked, dropped=masked).num_kept


@pytest.mark.parametrize(("length", "steps"), [(256, 8), (256, 20), (49, 12), (5, 20), (1, 3)])
def test_schedule_agrees_with_plain_loops(length: int, steps: int) -> None:
    unknown, counts = length, []
    for step in range(steps):
        unknown = 0 if step == steps - 1 else num_still_masked(length, unknown, step, steps)
        counts.append(unknown)
    assert counts == reference.remaining(length, steps)


def test_schedule_is_computed_in_double_precision() -> None:
    # 256 cos(pi / 3) is exactly 128; single precision gives 127 for some step counts.
    assert num_still_masked(256, 256, 19, 30) == math.floor(256 * math.cos(math.pi / 2 * 20 / 30))


def test_baselines_ratios_have_their_distributions() -> None:
    uniform = sample_mask_ratio(MaskRatioConfig(distribution="uniform", low=0.2), 100_000, rng.generator(0))
    assert float(uniform.min()) >= 0.2
    assert float(uniform.mean()) == pytest.approx(0.6, abs=0.005)
    cosine = sample_mask_ratio(MaskRatioConfig(distribution="cosine", low=0.01), 100_000, rng.generator(0))
    assert float(cosine.mean()) == pytest.approx(2 / math.pi, abs=0.005)  # MaskGIT's: mean of cos(pi/2 u)
    assert float((cosine > 0.5).double().mean()) == pytest.approx(2 / 3, abs=0.01)


def test_maskgit_drops_nothing() -> None:
    config = MaskRatioConfig(distribution="cosine", low=0.01, drop=False, per_image=True)
    mask = random_mask(config, 16, 64, rng.generator(0))
    assert not mask.dropped.any()
    assert mask.num_kept == 64
    assert (mask.masked.sum(dim=1) >= 1).all()
