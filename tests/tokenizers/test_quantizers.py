"""Quantizers against plain loops, and the codebook's life."""

import math

import pytest
import torch
from torch import Tensor

from mage.tokenizers.quantizers import (
    FSQ,
    LFQ,
    QUANTIZERS,
    QuantizerConfig,
    RunningMeanQuantizer,
    SimVQ,
    VectorQuantizer,
    build_quantizer,
    codebook_usage,
)
from mage.tokenizers.quantizers.base import entropy_loss
from mage.tokenizers.quantizers.life import k_means
from tests.reference.quantizers import entropy_by_loops, fsq_by_loops, k_means_by_loops, lfq_by_loops, nearest_by_loops


@pytest.fixture
def latent(generator: torch.Generator) -> Tensor:
    return torch.randn(2, 4, 3, 3, generator=generator)


def test_ids_are_the_nearest_words(latent: Tensor, generator: torch.Generator) -> None:
    quantizer = VectorQuantizer(QuantizerConfig(num_codes=10), 4)
    quantizer.codebook.data = torch.randn(10, 4, generator=generator)
    assert quantizer.ids(latent).flatten().tolist() == nearest_by_loops(latent, quantizer.codebook.data)


def test_ids_on_the_sphere_are_the_nearest_words_too(latent: Tensor) -> None:
    quantizer = RunningMeanQuantizer(QuantizerConfig(kind="normalized", num_codes=10), 4)
    unit = torch.nn.functional.normalize(latent, dim=1)
    assert quantizer.ids(latent).flatten().tolist() == nearest_by_loops(unit, quantizer.codebook)


def test_loss_and_gradients_are_those_of_the_formula(latent: Tensor, generator: torch.Generator) -> None:
    quantizer = VectorQuantizer(QuantizerConfig(num_codes=6, commitment=0.25), 4)
    quantizer.codebook.data = torch.randn(6, 4, generator=generator)
    latent.requires_grad_(True)
    output = quantizer(latent)
    words = quantizer.lookup(output.ids).detach()
    assert output.loss.item() == pytest.approx(1.25 * (latent.detach() - words).square().mean().item(), rel=1e-5)
    assert torch.allclose(output.vectors, words, atol=1e-6)
    (output.vectors.sum() + output.loss).backward()
    difference = latent.detach() - words
    assert latent.grad is not None
    torch.testing.assert_close(latent.grad, 1 + 0.25 * 2 * difference / difference.numel())
    expected = torch.zeros(6, 4)
    for code, row in zip(output.ids.flatten(), difference.permute(0, 2, 3, 1).reshape(-1, 4), strict=True):
        expected[code] -= 2 * row / difference.numel()
    torch.testing.assert_close(quantizer.codebook.grad, expected)


def small(kind: str, **settings: object) -> QuantizerConfig:
    """Sixteen codes of any kind, of the width below."""
    levels = (4, 4) if kind == "fsq" else ()
    return QuantizerConfig(kind=kind, num_codes=16, levels=levels, **settings)  # type: ignore[arg-type]


def width_of(kind: str) -> int:
    """4; of fsq 2, because fewer than three levels per number are dead."""
    return 2 if kind == "fsq" else 4


def test_normalized_words_follow_the_running_mean_of_their_vectors(latent: Tensor) -> None:
    config = QuantizerConfig(kind="normalized", num_codes=3, warmup_steps=0, decay=0.5, revive_below=0.0)
    quantizer = RunningMeanQuantizer(config, 4).train()
    quantizer(latent)  # k-means places the words
    words, sums, usage = quantizer.codebook.clone(), quantizer.sums.clone(), quantizer.life.usage.clone()
    ids = quantizer(latent).ids.flatten().tolist()
    rows = torch.nn.functional.normalize(latent, dim=1).permute(0, 2, 3, 1).reshape(-1, 4)
    assert ids == [int((words @ row).argmax()) for row in rows]
    for code in range(3):
        own = [row for row, chosen in zip(rows, ids, strict=True) if chosen == code]
        scale = 3 / len(rows)
        expected = 0.5 * sums[code] + 0.5 * scale * sum(own, torch.zeros(4))
        torch.testing.assert_close(quantizer.sums[code], expected)
        assert quantizer.life.usage[code].item() == pytest.approx(0.5 * usage[code].item() + 0.5 * scale * len(own))
        torch.testing.assert_close(quantizer.codebook[code], expected / expected.norm())


def test_unused_words_come_back_to_life() -> None:
    config = QuantizerConfig(kind="normalized", num_codes=64, warmup_steps=0)
    quantizer = RunningMeanQuantizer(config, 8).train()
    random = torch.Generator().manual_seed(0)
    quantizer(torch.ones(4, 8, 4, 4) + 1e-3 * torch.randn(4, 8, 4, 4, generator=random))  # one cluster: words collapse
    for _ in range(400):
        output = quantizer(torch.randn(8, 8, 4, 4, generator=random))
    assert codebook_usage(output.ids, 64).used > 0.8


def test_warmup_passes_vectors_through() -> None:
    quantizer = RunningMeanQuantizer(QuantizerConfig(kind="normalized", num_codes=8, warmup_steps=2), 4).train()
    latent = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(latent, dim=1)
    for _ in range(2):
        assert torch.equal(quantizer(latent).vectors, unit)
    assert not torch.equal(quantizer(latent).vectors, unit)


def test_usage_counts_and_perplexity() -> None:
    usage = codebook_usage(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), 8)
    assert usage.counts.tolist() == [2, 2, 2, 2, 0, 0, 0, 0]
    assert usage.used == 0.5
    assert usage.perplexity == pytest.approx(4.0)
    skewed = codebook_usage(torch.tensor([0, 0, 0, 1]), 2).perplexity
    assert skewed == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


@pytest.mark.parametrize("kind", QUANTIZERS.names())
def test_every_kind_agrees_with_itself(kind: str, latent: Tensor) -> None:
    """ids, lookup, words and forward tell the same story; gradients pass straight through; states load."""
    width = width_of(kind)
    quantizer = build_quantizer(small(kind), width).eval()
    latent = latent[:, :width].clone().requires_grad_(True)
    output = quantizer(latent)
    assert torch.equal(output.ids, quantizer.ids(latent))
    assert quantizer.words().shape == (16, width)
    assert output.ids.min() >= 0
    assert output.ids.max() < 16
    torch.testing.assert_close(output.vectors, quantizer.lookup(output.ids))
    output.vectors.sum().backward()
    assert latent.grad is not None
    assert latent.grad.abs().sum() > 0
    ids = torch.arange(16).view(1, 4, 4)
    if kind != "fsq":  # its words are inside the range that tanh reaches only at infinity
        assert torch.equal(quantizer.ids(quantizer.lookup(ids)), ids)
    again = build_quantizer(small(kind), width)
    again.load_state_dict(quantizer.state_dict())
    assert torch.equal(again.ids(latent), output.ids)


@pytest.mark.parametrize("kind", QUANTIZERS.names())
def test_every_kind_learns_to_reproduce_clusters(kind: str) -> None:
    """A linear encoder and decoder around each quantizer halve the error of the mean, and use most codes."""
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        quantizer = build_quantizer(
            small(kind, keep_alive=True, warmup_steps=20, entropy=0.1 if kind == "lfq" else 0.0), width_of(kind)
        ).train()
        encoder, decoder = torch.nn.Conv2d(6, width_of(kind), 1), torch.nn.Conv2d(width_of(kind), 6, 1)
    centres = torch.randn(16, 6, generator=random)
    parameters = [*encoder.parameters(), *decoder.parameters(), *quantizer.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    errors, ids = [], torch.zeros(0, dtype=torch.int64)
    for step in range(300):
        chosen = torch.randint(16, (16, 4, 4), generator=random)
        noise = 0.05 * torch.randn(16, 4, 4, 6, generator=random)
        target = (centres[chosen] + noise).permute(0, 3, 1, 2)
        output = quantizer(encoder(target))
        error = (decoder(output.vectors) - target).square().mean()
        optimizer.zero_grad()
        (error + output.loss).backward()
        optimizer.step()
        if step >= 280:
            errors.append(error.item())
            ids = torch.cat([ids, output.ids.flatten()])
    assert sum(errors) / len(errors) < 0.5 * centres.var(dim=0).mean().item()
    assert codebook_usage(ids, 16).used >= (0.5 if kind in ("fsq", "lfq") else 0.75)


def test_running_means_of_ema_follow_the_formula(latent: Tensor) -> None:
    config = QuantizerConfig(kind="ema", num_codes=3, warmup_steps=0, decay=0.5, revive_below=0.0)
    quantizer = RunningMeanQuantizer(config, 4).train()
    quantizer(latent)
    sums, usage, words = quantizer.sums.clone(), quantizer.life.usage.clone(), quantizer.codebook.clone()
    ids = quantizer(latent).ids.flatten().tolist()
    assert ids == nearest_by_loops(latent, words)
    rows = latent.permute(0, 2, 3, 1).reshape(-1, 4)
    for code in range(3):
        own = [row for row, chosen in zip(rows, ids, strict=True) if chosen == code]
        total = 0.5 * sums[code] + 0.5 * 3 / len(rows) * sum(own, torch.zeros(4))
        weight = 0.5 * usage[code] + 0.5 * 3 / len(rows) * len(own)
        torch.testing.assert_close(quantizer.codebook[code], total / weight)


@pytest.mark.parametrize("kind", ["vq", "simvq"])
def test_keep_alive_revives_words_learned_by_gradient(kind: str) -> None:
    random = torch.Generator().manual_seed(0)
    used = {}
    for keep_alive in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            quantizer = build_quantizer(
                QuantizerConfig(kind=kind, num_codes=64, keep_alive=keep_alive, warmup_steps=0, decay=0.9),  # type: ignore[arg-type]
                8,
            ).train()
        data = 5 + torch.randn(8, 8, 8, 8, generator=random)  # far from where the words begin
        for _ in range(100):
            output = quantizer(data)
        used[keep_alive] = codebook_usage(output.ids, 64).used
    assert used[True] > 0.9 > used[False]


def test_fsq_is_the_papers_grid(latent: Tensor) -> None:
    quantizer = FSQ(QuantizerConfig(kind="fsq", num_codes=240, levels=(8, 6, 5)), 3)
    output = quantizer(3 * latent[:, :3])
    expected = [fsq_by_loops(row, (8, 6, 5)) for row in (3 * latent[:, :3]).permute(0, 2, 3, 1).reshape(-1, 3).tolist()]
    assert output.ids.flatten().tolist() == [code for code, _ in expected]
    words = torch.tensor([word for _, word in expected]).view(2, 3, 3, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(output.vectors, words)
    assert len(torch.unique(quantizer.words(), dim=0)) == 240
    assert torch.equal(quantizer(torch.zeros(1, 3, 1, 1)).vectors.flatten(), torch.zeros(3))
    far = torch.tensor([[-50.0, -50.0, -50.0], [50.0, 50.0, 50.0]]).T.reshape(1, 3, 2, 1)
    assert quantizer.ids(far).flatten().tolist() == [0, 239]
    many = FSQ(QuantizerConfig(kind="fsq", num_codes=4096, levels=(4096,)), 1)
    assert many.ids(far[:, :1]).flatten().tolist() == [0, 4095], "the last level is not rounded past"


def test_lfq_reads_signs_as_bits(latent: Tensor) -> None:
    quantizer = LFQ(QuantizerConfig(kind="lfq", num_codes=16, entropy=0.1, entropy_temperature=0.5), 4)
    output = quantizer(latent)
    rows = latent.permute(0, 2, 3, 1).reshape(-1, 4)
    assert output.ids.flatten().tolist() == [lfq_by_loops(row) for row in rows.tolist()]
    words = quantizer.words()
    affinity = -(rows[:, None] - words[None]).square().sum(dim=2)
    expected = 0.25 * (latent - output.vectors.detach()).square().mean() + 0.1 * entropy_by_loops(affinity, 0.5)
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_lfq_with_many_bits_treats_groups_as_independent() -> None:
    quantizer = LFQ(QuantizerConfig(kind="lfq", num_codes=2**14, entropy=1.0, commitment=0.0), 14).train()
    latent = torch.randn(2, 14, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    loss = quantizer(latent).loss
    loss.backward()
    assert loss.item() < 0
    assert latent.grad is not None
    assert latent.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["vq", "ema", "normalized", "simvq"])
def test_entropy_loss_is_that_of_distances(kind: str, latent: Tensor, generator: torch.Generator) -> None:
    plain, weighted = (
        build_quantizer(small(kind, entropy=weight, entropy_temperature=0.3, warmup_steps=0), 4).eval()
        for weight in (0.0, 0.2)
    )
    weighted.load_state_dict(plain.state_dict())
    rows = latent.permute(0, 2, 3, 1).reshape(-1, 4)
    if kind == "normalized":
        rows = torch.nn.functional.normalize(rows, dim=1)
    affinity = -(rows[:, None] - plain.words()[None]).square().sum(dim=2)
    difference = weighted(latent).loss - plain(latent).loss
    assert difference.item() == pytest.approx(0.2 * entropy_by_loops(affinity, 0.3).item(), rel=1e-3, abs=1e-6)


def test_entropy_loss_by_loops(generator: torch.Generator) -> None:
    affinity = torch.randn(5, 7, generator=generator)
    torch.testing.assert_close(entropy_loss(affinity, 0.7), entropy_by_loops(affinity, 0.7))
    torch.testing.assert_close(entropy_loss(1e4 * torch.eye(7), 0.01), torch.tensor(-math.log(7)))


def test_k_means_by_loops(generator: torch.Generator) -> None:
    vectors = torch.randn(40, 3, generator=generator)
    for spherical in (False, True):
        given = torch.nn.functional.normalize(vectors, dim=1) if spherical else vectors
        start = k_means(given, 4, spherical=spherical, rounds=0)
        expected = k_means_by_loops(given, start, spherical=spherical, rounds=3)
        torch.testing.assert_close(k_means(given, 4, spherical=spherical, rounds=3), expected)


def test_simvq_moves_all_words_with_one_step(latent: Tensor) -> None:
    quantizer = SimVQ(QuantizerConfig(kind="simvq", num_codes=32), 4).train()
    before = quantizer.words().detach().clone()
    assert [name for name, _ in quantizer.named_parameters()] == ["codebook_map.weight"]
    quantizer(latent).loss.backward()
    torch.optim.SGD(quantizer.parameters(), lr=0.1).step()
    assert ((quantizer.words() - before).abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("settings", "width", "words"),
    [
        ({"kind": "fsq", "num_codes": 1024, "levels": (8, 5, 5, 5)}, 4, "make 1000 codes"),
        ({"kind": "fsq", "num_codes": 1000, "levels": (8, 5, 5, 5)}, 6, "code_width 6"),
        ({"kind": "fsq", "num_codes": 1000}, 4, "For about 1,000 codes"),
        ({"kind": "fsq", "num_codes": 40, "levels": (5, 2, 4)}, 3, r"must be 3 or more, not 2.*take kind lfq"),
        ({"kind": "lfq", "num_codes": 1000}, 10, "has 1024 codes"),
        ({"num_codes": 1}, 4, "at least 2"),
        ({"decay": 1.0}, 4, "decay"),
        ({"entropy": 0.1, "entropy_temperature": 0.0}, 4, "positive"),
    ],
)
def test_sizes_that_do_not_agree_are_refused(settings: dict[str, object], width: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_quantizer(QuantizerConfig(**settings), width)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (8, 8, 8), (3, 4)])
def test_fsq_agrees_with_the_package_vector_quantize_pytorch(
    levels: tuple[int, ...], generator: torch.Generator
) -> None:
    package = pytest.importorskip("vector_quantize_pytorch")
    oracle = package.FSQ(list(levels))
    config = QuantizerConfig(kind="fsq", num_codes=math.prod(levels), levels=levels)
    ours = build_quantizer(config, len(levels)).eval()
    latent = 2 * torch.randn(2, len(levels), 3, 5, generator=generator)
    words, ids = oracle(latent)
    found = ours(latent)
    assert torch.equal(found.ids, ids.long())
    torch.testing.assert_close(found.vectors, words)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("levels", [(2, 2), (8, 2, 5), (3, 3), (8, 5, 5, 5)])
def test_fsq_refuses_the_levels_that_vector_quantize_pytorch_refuses(levels: tuple[int, ...]) -> None:
    package = pytest.importorskip("vector_quantize_pytorch")
    config = QuantizerConfig(kind="fsq", num_codes=math.prod(levels), levels=levels)
    refused = []
    for make in (lambda: package.FSQ(list(levels)), lambda: build_quantizer(config, len(levels))):
        try:
            make()
            refused.append(False)
        except (AssertionError, ValueError):
            refused.append(True)
    assert refused[0] == refused[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_lfq_agrees_with_the_package_vector_quantize_pytorch(generator: torch.Generator) -> None:
    package = pytest.importorskip("vector_quantize_pytorch")
    oracle = package.LFQ(codebook_size=64, dim=6, entropy_loss_weight=0.0).eval()
    ours = build_quantizer(QuantizerConfig(kind="lfq", num_codes=64), 6).eval()
    latent = torch.randn(2, 6, 3, 5, generator=generator)
    words, ids, _ = oracle(latent)
    found = ours(latent)
    torch.testing.assert_close(found.vectors, words)
    # the package reads the first number as the highest bit
    flipped = sum((found.ids >> bit & 1) << (5 - bit) for bit in range(6))
    assert torch.equal(torch.as_tensor(flipped), ids)
