"""Cached tokens in a device's memory: the same batches as from the files."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mage
from mage.data import device_tokens
from mage.data.batches import Batch
from mage.data.datasets import load_dataset
from mage.data.device_tokens import DeviceTokens, HostTokens, place_tokens, token_bytes
from mage.data.token_batches import token_batches
from mage.data.token_cache import TokenCache, write_cache
from mage.recipes import named
from mage.share import Share

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> TokenCache:
    recipe = named("smoke")
    tokenizer = mage.build(recipe.model, tokenizer=recipe.tokenizer).tokenizer
    digits = load_dataset("digits")
    folder = tmp_path_factory.mktemp("cache") / "tokens"
    write_cache(
        folder, digits, tokenizer, recipe.data.transform, views=3, seed=0, encode=tokenizer.encode, shard_images=700
    )
    return TokenCache(folder)


def assert_equal(one: Iterator[Batch], other: Iterator[Batch], count: int) -> None:
    for first, second in zip(islice(one, count), islice(other, count), strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert first[name].dtype == second[name].dtype == torch.int64
            assert torch.equal(first[name], second[name])


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("share", [Share(600), Share(600, 2, 0, 1), Share(600, 2, 1, 2)], ids=str)
@pytest.mark.parametrize("start", [0, 3])
def test_batches_from_a_device_are_those_from_the_files(
    cache: TokenCache, share: Share, start: int, pairs: bool
) -> None:
    """Two steps are an epoch, so that epochs change on the way; from step 3 on is a resumed run."""
    host, device = (
        token_batches(cache, share=share, seed=5, start=start, pairs=pairs, place=place) for place in ("host", "device")
    )
    assert_equal(host, device, 5 * share.parts)


def test_every_word_of_sixteen_bits_survives(cache: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.arange(2**16, dtype="<u2").reshape(-1, 1, 16)
    monkeypatch.setattr(cache, "shards", lambda: iter([large]))
    monkeypatch.setattr(cache, "labels", np.arange(len(large)))
    monkeypatch.setattr(type(cache), "__len__", lambda self: len(large))
    monkeypatch.setattr(cache, "key", cache.key.__class__(**{**vars(cache.key), "views": 1}))
    everything = torch.arange(len(large))
    tokens = DeviceTokens(cache, CPU).tokens(everything, torch.zeros_like(everything))
    assert torch.equal(tokens.flatten(), torch.arange(2**16))


def test_damaged_tokens_are_refused_when_they_are_copied(cache: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "num_codes", 1)
    with pytest.raises(ValueError, match="tokenize again"):
        DeviceTokens(cache, CPU)


def test_a_cache_is_copied_only_to_a_gpu_with_room_for_ten_of_it(
    cache: TokenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(place_tokens(cache, CPU), HostTokens)
    size = len(cache) * (3 * 16 * 2 + 8)
    assert token_bytes(cache) == size
    for free, expected in ((10 * size, DeviceTokens), (10 * size - 10, HostTokens)):
        monkeypatch.setattr(device_tokens, "free_memory", lambda device, free=free: free)
        assert type(place_tokens(cache, CPU)) is expected


def test_within_an_epoch_nothing_is_copied_to_the_device(cache: TokenCache) -> None:
    class Copies(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            inputs = [value for value in args if isinstance(value, torch.Tensor)]
            if isinstance(result, torch.Tensor) and result.device == META and any(x.device == CPU for x in inputs):
                self.count += 1
            return result

    batches = token_batches(cache, share=Share(100), seed=0, device=META, place="device")
    with Copies() as copies:
        first = next(batches)
        assert copies.count > 0
        assert first["tokens"].device == first["labels"].device == META
        copies.count = 0
        for _ in range(10):
            next(batches)
        assert copies.count == 0
