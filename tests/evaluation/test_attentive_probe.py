"""Attentive probe: finds what a mean hides, stays at chance where there is nothing, repeats with its seed."""

from typing import Any

import pytest
import torch

import mage
from mage import rng
from mage.data.datasets import load_dataset
from mage.evaluation.attentive_probe import (
    AttentiveConfig,
    AttentiveHead,
    AttentiveProbe,
    TokenFeatures,
    probe_batches,
)
from mage.evaluation.features import Features
from mage.evaluation.linear_probe import lbfgs_probe
from mage.evaluation.representation import Representation
from mage.recipes import named

QUICK = AttentiveConfig(epochs=20, batch_size=64, learning_rate=1e-2)


def one_position_tells(count: int, name: str) -> TokenFeatures:
    """One of 12 tokens, marked by its first number, carries the class; the rest are distractors of all classes."""
    labels = torch.randint(4, (count,), generator=rng.generator(0, name))
    places = torch.randint(12, (count,), generator=rng.generator(1, name))
    classes = torch.randint(4, (count, 12), generator=rng.generator(2, name))
    classes[torch.arange(count), places] = labels
    rows = torch.cat([torch.zeros(count, 12, 1), torch.nn.functional.one_hot(classes, 4)], dim=2).float()
    rows[torch.arange(count), places, 0] = 1.0
    return TokenFeatures(torch.cat([rows, torch.zeros(count, 12, 3)], dim=2), labels)


def test_finds_the_position_that_a_mean_hides() -> None:
    train, test = one_position_tells(1200, "train"), one_position_tells(400, "test")
    mean = lbfgs_probe(*(Features(part.rows.mean(dim=1), part.labels) for part in (train, test))).accuracy
    found = probe_batches(train, [test], config=QUICK)
    assert found.accuracy > 0.95 > mean + 0.2
    assert found.protocol == "attentive_20ep"
    assert probe_batches(train, [test], config=QUICK) == found


def test_is_at_chance_without_anything_to_see() -> None:
    random = [torch.randn(400, 6, 8, generator=rng.generator(index)) for index in range(2)]
    labels = torch.arange(400) % 4
    train, test = (TokenFeatures(rows, labels) for rows in random)
    assert abs(probe_batches(train, [test], config=QUICK).accuracy - 0.25) < 0.08


def test_order_of_the_tokens_does_not_matter() -> None:
    head = AttentiveHead(8, 3, heads=3)  # three heads do not divide 8: one is taken
    assert head.heads == 1
    torch.nn.init.normal_(head.head.weight, generator=rng.generator(0))
    rows = torch.randn(2, 5, 8, generator=rng.generator(0))
    torch.testing.assert_close(head(rows), head(rows.flip(1)))


def test_tokens_of_test_images_are_scored_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of ImageNet's test images would take 20 GB."""
    train, test = (load_dataset("digits", split=split) for split in ("train", "test"))
    seen: list[str] = []

    recipe = named("smoke")
    model = mage.build(recipe.model, tokenizer=recipe.tokenizer, precision="float32")
    encode = model.forward_intermediates

    def encoding(pixels: torch.Tensor, *words: Any, **more: Any) -> list[torch.Tensor]:
        seen.append(f"encoded {len(pixels)}")
        return encode(pixels, *words, **more)

    monkeypatch.setattr(model, "forward_intermediates", encoding)
    forward = AttentiveHead.forward
    monkeypatch.setattr(AttentiveHead, "forward", lambda head, rows: (seen.append("scored"), forward(head, rows))[1])
    subject = Representation(model, train, test, batch_size=100)
    (metric,) = AttentiveProbe(training_images=250).measure(subject)
    assert metric.details["interval"][0] < metric.value
    assert seen[:4] == ["encoded 100", "encoded 100", "encoded 50", "scored"]
    assert seen[-6:] == ["encoded 100", "scored", "encoded 100", "scored", "encoded 97", "scored"]
