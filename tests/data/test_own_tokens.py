"""Tokens that are no image's: cached, trained on and sampled from without a tokenizer."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mage
from mage import runs
from mage.cli.main import main
from mage.data.own_tokens import write_tokens
from mage.data.token_batches import token_batches
from mage.data.token_cache import TokenCache
from mage.recipes import named
from mage.settings import override
from mage.share import Share
from mage.training.methods import METHODS
from tests.reference.launches import quiet

COUNTING = np.stack([(np.arange(12) + start) % 20 for start in range(20)] * 4)
"""Sequences that count up: each token follows from any other."""


@pytest.mark.parametrize(
    ("shape", "grid", "views"),
    [
        ((6, 5), (5,), 0),
        ((6, 2, 3), (2, 3), 0),
        ((6, 4, 2, 3), (4, 2, 3), 0),
        ((6, 4, 5), (5,), 4),
        ((6, 4, 2, 3), (2, 3), 4),
        ((6, 4, 2, 3, 5), (2, 3, 5), 4),
        ((6, 1, 5), (5,), 1),
    ],
)
def test_every_shape_comes_back(shape: tuple[int, ...], grid: tuple[int, ...], views: int, tmp_path: Path) -> None:
    """views: 0 where no dimension counts them."""
    tokens = np.random.default_rng(0).integers(0, 300, shape)
    cache = write_tokens(
        tmp_path / "cache", tokens, num_codes=300, views=views > 0, labels=np.arange(6), shard_images=4
    )
    views = views or 1
    assert (cache.grid, cache.key.views, len(cache)) == (grid, views, 6)
    again = cache.tokens(np.array([5, 0]), np.array([views - 1, 0]))
    flat = tokens.reshape(6, views, *grid)
    assert np.array_equal(again.numpy(), flat[[5, 0], [views - 1, 0]])
    assert cache.labels.tolist() == list(range(6))
    batch = next(token_batches(TokenCache(tmp_path / "cache"), share=Share(3), seed=0))
    assert batch["tokens"].shape == (3, *grid)


@pytest.mark.parametrize(
    ("tokens", "more", "words"),
    [
        (np.zeros((3,), int), {}, r"integers \(n, length\) or \(n, h, w\) or \(n, t, h, w\), not"),
        (np.zeros((2, 2, 2, 2, 2), int), {}, "integers"),
        (np.zeros((3, 4), int), {"views": True}, r"integers \(n, views, length\) or"),
        (np.zeros((2, 2, 2, 2, 2, 2), int), {"views": True}, "integers"),
        (np.zeros((3, 4)), {}, "not float64"),
        (np.zeros((0, 4), int), {}, "integers"),
        (np.array([[0, 5]]), {"num_codes": 5}, "0 to 5; they must lie"),
        (np.array([[-1, 0]]), {}, "-1 to 0"),
        (np.array([[0, 1]]), {"num_codes": 70000}, "num_codes from 2 to 65536"),
        (np.array([[0, 1]]), {"labels": np.array([0, 1])}, "do not number 1"),
        (np.array([[0, 1]]), {"labels": np.array([0.5])}, "float64"),
        (np.array([[0, 1]]), {"labels": np.array([2**31])}, "do not number"),
        (np.array([[0, 1]]), {"labels": np.array([3]), "class_names": ("a",)}, "do not number"),
    ],
)
def test_invalid_tokens_are_refused(tokens: np.ndarray, more: dict, words: str, tmp_path: Path) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=words):
        write_tokens(tmp_path / "cache", tokens, **({"num_codes": 10} | more))
    assert not (tmp_path / "cache").exists()


def test_a_sequence_model_learns_to_count_and_fills_gaps(tmp_path: Path) -> None:
    cache = write_tokens(tmp_path / "train", COUNTING, num_codes=20)
    recipe = override(
        named("smoke"),
        ["model.width=64", "model.depth=2", "model.heads=4", "model.decoder_width=64", "model.position_init=sincos",
         "model.dropout=0", "model.label_smoothing=0", "pretraining.steps=400", "pretraining.batch_size=40",
         "pretraining.optimizer=muon", "pretraining.base_learning_rate=0.05", "method.masking.low=0.2",
         "run.observe_every=400", "run.checkpoint_every=400", "run.log_every=100"],
    )  # fmt: skip
    result = runs.pretrain(recipe, quiet(tmp_path / "run"), cache=cache, validation=cache)
    assert result.metrics["valid/loss"] < 1.5  # 3.0 is chance
    model = mage.load(tmp_path / "run")
    start = torch.from_numpy(COUNTING[:8]).clone()
    start[:, 4:10] = -1
    filled = model.generate_tokens(8, start=start, token_temperature=0.0)
    assert (filled.numpy() == COUNTING[:8]).mean() > 0.9
    free = model.generate_tokens(32, seed=1)
    assert ((free.diff(dim=1) % 20) == 1).float().mean() > 0.6


def test_a_model_of_sequences_begins_where_another_ended(tmp_path: Path) -> None:
    cache = write_tokens(tmp_path / "train", COUNTING, num_codes=20)
    runs.pretrain(override(named("smoke"), ["seed=1", "pretraining.steps=2"]), quiet(tmp_path / "first"), cache=cache)
    model = mage.load(tmp_path / "first")
    still = override(named("smoke"), ["pretraining.steps=1", "pretraining.base_learning_rate=0"])
    runs.pretrain(still, quiet(tmp_path / "second"), cache=cache, init_from=model)
    begun = mage.load(tmp_path / "second").transformer.state_dict()
    for name, tensor in model.transformer.state_dict().items():
        assert torch.equal(begun[name], tensor), name


@pytest.mark.parametrize("method", ["mage", "mage-c"])
def test_clips_are_trained_on_and_drawn_by_either_method(method: str, tmp_path: Path) -> None:
    clips = np.random.default_rng(0).integers(0, 5, (40, 2, 3, 4, 2))
    cache = write_tokens(tmp_path / "train", clips, num_codes=5, views=True)
    recipe = override(named("smoke"), ["model.position_init=sincos", "pretraining.batch_size=8"])
    recipe = replace(recipe, method=METHODS.get(method)())
    result = runs.pretrain(recipe, quiet(tmp_path / "run"), cache=cache, validation=cache)
    assert np.isfinite(result.metrics["valid/loss"])
    model = mage.load(tmp_path / "run")
    assert model.transformer.grid == (3, 4, 2)
    start = torch.from_numpy(clips[:2, 0]).clone()
    start[:, 1:] = -1
    filled = model.generate_tokens(2, start=start, order="halton", revisions=1)
    assert filled.shape == (2, 3, 4, 2)
    assert torch.equal(filled[:, 0], start[:, 0])
    assert filled.min() >= 0


def test_the_commands_go_from_an_array_to_new_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "tokens.npy", COUNTING)
    cache, run, out = (str(tmp_path / name) for name in ("cache", "run", "out"))
    main(["tokenize", "--array", str(tmp_path / "tokens.npy"), "--out", cache])
    main(["pretrain", "--recipe", "smoke", "--data", cache, "--validation", cache, "--out", run, "--json"])
    main(["generate", "--model", run, "--num", "3", "--out", out])
    assert "this model has no tokenizer" in capsys.readouterr().out
    assert np.load(tmp_path / "out" / "tokens.npy").shape == (3, 12)
    capsys.readouterr()
    main(["info", run])
    told = capsys.readouterr().out
    assert ", 12 tokens" in told
    assert "digits" not in told, "the recipe's images have nothing to do with it"
    assert mage.load(run).recipe["data"]["name"] == "tokens"


@pytest.mark.parametrize(("flags", "grid", "views"), [([], [4, 2, 3], 1), (["--array-views"], [2, 3], 4)])
def test_an_option_says_whether_a_dimension_counts_views(
    flags: list[str], grid: list[int], views: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "tokens.npy", np.arange(48).reshape(2, 4, 2, 3))
    main(["tokenize", "--array", str(tmp_path / "tokens.npy"), "--out", str(tmp_path / "out"), "--json", *flags])
    made = json.loads(capsys.readouterr().out)
    assert (made["grid"], made["views"], made["rows"], made["num_codes"]) == (grid, views, 2, 48)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("tokenize --out {out}", "either --tokenizer or --array"),
        ("tokenize --array {root}/none.npy --out {out}", "no such file"),
        ("tokenize --array {root}/cut.npy --out {out}", "claims more values"),
        ("tokenize --array {root}/floats.npy --out {out}", "it holds float64"),
        ("tokenize --array {root}/tokens.npy --array-views --out {out}", "(n, views, length)"),
        ("tokenize --array {root}/tokens.npy --num-codes 3 --out {out}", "they must lie"),
        ("pretrain --recipe smoke --out {out}", "give --tokenizer"),
        ("pretrain --recipe smoke --data {root} --out {out}", "give --tokenizer"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "tokens.npy", COUNTING)
    np.save(tmp_path / "floats.npy", COUNTING / 2)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "tokens.npy").read_bytes()[:-8])
    with pytest.raises(SystemExit) as stop:
        main(arguments.format(root=tmp_path, out=tmp_path / "out").split())
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
