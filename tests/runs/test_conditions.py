"""Classes: from labels and from clusters, from the start and as a new decoder on a frozen encoder."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import mage
from mage import rng, runs, settings
from mage.data.token_cache import TokenCache
from mage.models.mage import MAGEEncoder, MAGETransformer
from mage.recipes import named
from mage.recipes.schema import Recipe
from mage.runs.conditions import cluster, from_cache, from_labels, token_features, whitened
from mage.sampling.classes import drawn_classes
from mage.share import Share, Turn
from mage.training.conditions import ConditionConfig, drop_classes
from tests.reference.launches import quiet


def told(recipe: Recipe) -> ConditionConfig:
    return recipe.method.class_conditions


QUIET: dict[str, Any] = {"precision": "float32"}


def recipe(*changes: str) -> Recipe:
    return settings.override(named("smoke"), ["pretraining.steps=6", "run.observe_every=6", *changes])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model without classes, its tokenizer and a token cache with labels."""
    root = tmp_path_factory.mktemp("conditions")
    model = mage.build(named("smoke").model, tokenizer=named("smoke").tokenizer, precision="float32")
    tokenizer = mage.Mage(model.tokenizer, None, precision="float32")
    cache = runs.tokenize(recipe(), quiet(root / "tokens"), tokenizer)
    runs.pretrain(recipe(), quiet(root / "run", **QUIET), tokenizer, cache=cache)
    return SimpleNamespace(
        root=root, tokenizer=tokenizer, cache=cache, model=mage.load(root / "run", precision="float32")
    )


def test_labels_from_the_start(base: SimpleNamespace, tmp_path: Path) -> None:
    runs.pretrain(
        recipe("method.conditions.source=labels"), quiet(tmp_path / "run", **QUIET), base.tokenizer, cache=base.cache
    )
    model = mage.load(tmp_path / "run", precision="float32")
    assert model.class_names == tuple("0123456789")
    assert model.transformer.vocabulary.num_classes == 10
    three, named_three, none = (model.generate_tokens(4, classes=classes) for classes in (3, "3", -1))
    assert torch.equal(three, named_three)
    assert torch.equal(none, model.generate_tokens(4, classes="none"))
    assert not torch.equal(three, none)
    mixed = model.generate_tokens(4, classes=[3, 5, 3, -1])
    assert torch.equal(mixed[0], three[0])
    assert torch.equal(mixed[3], none[3])
    guided = model.generate_tokens(4, classes=3, guidance=4.0)
    assert not torch.equal(guided, three)
    assert torch.equal(model.generate_tokens(4, classes=-1, guidance=4.0), none), "there is nothing to guide to"
    labels = base.cache.labels
    shares = [float((labels == number).mean()) for number in range(10)]
    assert model.notes["class_shares"] == pytest.approx(shares)
    drawn = drawn_classes(shares, 0, range(4))
    assert torch.equal(model.generate_tokens(4), model.generate_tokens(4, classes=drawn)), "as often as in training"
    assert len(drawn.unique()) > 1
    with pytest.raises(ValueError, match="there is no class 'ship'"):
        model.generate(1, classes="ship")


def test_a_decoder_for_labels_leaves_the_encoder_as_it_was(base: SimpleNamespace, tmp_path: Path) -> None:
    wanted = recipe(
        "method.conditions.source=labels", "method.conditions.freeze_encoder=true", "model.class_input=decoder"
    )
    runs.pretrain(wanted, quiet(tmp_path / "run", **QUIET), base.tokenizer, cache=base.cache, init_from=base.model)
    model = mage.load(tmp_path / "run", precision="float32")
    before, after = base.model.transformer.state_dict(), model.transformer.state_dict()
    for name, tensor in before.items():
        if name.startswith("encoder."):
            assert torch.equal(tensor, after[name]), name
    assert any(not torch.equal(before[name], after[name]) for name in before if "decoder" in name)
    images = torch.rand(3, 1, 8, 8, generator=rng.generator(0))
    assert torch.equal(model.features(images), base.model.features(images))
    assert model.transformer.class_embedding.weight[:10].abs().sum() > 0
    one, two = (model.generate_tokens(3, classes=number, guidance=500.0) for number in (1, 2))
    assert not torch.equal(one, two), "six steps teach little, which a large guidance shows"


def test_an_encoder_of_random_weights_is_not_frozen(base: SimpleNamespace, tmp_path: Path) -> None:
    wanted = recipe(
        "method.conditions.source=labels", "method.conditions.freeze_encoder=true", "model.class_input=decoder"
    )
    for recipe_of_random in (wanted, settings.override(wanted, ["method.conditions.source=none"])):
        with pytest.raises(ValueError, match="freeze_encoder keeps the encoder as it is: give --init-from"):
            runs.pretrain(recipe_of_random, quiet(tmp_path / "run", **QUIET), base.tokenizer, cache=base.cache)
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_an_encoder_of_other_tokens_is_not_frozen(base: SimpleNamespace, tmp_path: Path) -> None:
    wanted = recipe(
        "method.conditions.source=labels", "method.conditions.freeze_encoder=true", "model.class_input=decoder"
    )
    other = mage.build(named("smoke").model, tokenizer=named("smoke").tokenizer, seed=1, precision="float32")
    tokenizer = mage.Mage(other.tokenizer, None, precision="float32")
    cache = runs.tokenize(recipe(), quiet(tmp_path / "tokens"), tokenizer)
    with pytest.raises(ValueError, match=r"has no encoder\.embedding\.word\.weight .* that fits"):
        runs.pretrain(wanted, quiet(tmp_path / "run", **QUIET), tokenizer, cache=cache, init_from=base.model)


def test_blocks_of_the_first_model_that_are_left_out_are_told(
    base: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    smoke = named("smoke")
    deep = mage.build(replace(smoke.model, depth=2), tokenizer=smoke.tokenizer, precision="float32")
    runs.pretrain(recipe(), quiet(tmp_path / "run", **QUIET), base.tokenizer, cache=base.cache, init_from=deep)
    assert "1 of the 2 blocks of --init-from are left out, since model.depth is smaller" in caplog.text


def test_a_frozen_encoder_runs_without_dropout(
    base: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, modes, encode = [], set(), MAGEEncoder.forward

    def forward(encoder: MAGEEncoder, *given: Any) -> torch.Tensor:
        outputs.append((encode(encoder, *given), encode(encoder, *given)))
        return outputs[-1][0]

    def decode(network: MAGETransformer, *given: Any) -> None:
        modes.add(network.training)

    monkeypatch.setattr(MAGEEncoder, "forward", forward)
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, given: decode(module, *given) if isinstance(module, MAGETransformer) else None
    )
    wanted = recipe(
        "method.conditions.source=labels", "method.conditions.freeze_encoder=true", "model.class_input=decoder",
        "model.dropout=0.5", "run.observe_every=3",
    )  # fmt: skip
    with hook:
        runs.pretrain(wanted, quiet(tmp_path / "run", **QUIET), base.tokenizer, cache=base.cache, init_from=base.model)
    assert modes == {True, False}, "the decoder learns with dropout, before and after an observation"
    assert len(outputs) > 6
    assert all(torch.equal(first, second) for first, second in outputs), "the encoder that the model will be used with"


def test_a_new_class_input_starts_where_the_model_was(base: SimpleNamespace, tmp_path: Path) -> None:
    wanted = recipe(
        "method.conditions.source=labels", "method.conditions.freeze_encoder=true", "model.class_input=decoder",
        "pretraining.base_learning_rate=0.0",
    )  # fmt: skip
    runs.pretrain(wanted, quiet(tmp_path / "run", **QUIET), base.tokenizer, cache=base.cache, init_from=base.model)
    model = mage.load(tmp_path / "run", precision="float32")
    assert torch.equal(model.generate_tokens(3, classes=[0, 5, 9]), base.model.generate_tokens(3))


def test_clusters_need_no_labels(base: SimpleNamespace, tmp_path: Path) -> None:
    wanted = recipe(
        "method.conditions.source=clusters", "method.conditions.clusters=5", "method.conditions.freeze_encoder=true",
        "model.class_input=decoder",
    )  # fmt: skip
    runs.pretrain(wanted, quiet(tmp_path / "run", **QUIET), base.tokenizer, cache=base.cache, init_from=base.model)
    model = mage.load(tmp_path / "run", precision="float32")
    assert (tmp_path / "run" / "figures" / "clusters.png").is_file()
    assert model.class_names == tuple(f"cluster {number}" for number in range(5))
    assert sum(model.notes["class_shares"]) == pytest.approx(1)
    free = model.generate_tokens(6, seed=2)
    assert torch.equal(free[4:], model.generate_tokens(2, seed=2, first_index=4)), "image k has its own class"
    assert not torch.equal(model.generate_tokens(6, seed=2, guidance=500.0), free)
    assert base.cache.class_names == tuple("0123456789"), "the cache on disk keeps its labels"


@pytest.mark.parametrize("source", ["none", "labels"])
def test_the_tokenizer_of_a_model_with_classes_brings_none_of_them(
    base: SimpleNamespace, tmp_path: Path, source: str
) -> None:
    clusters = recipe(
        "method.conditions.source=clusters", "method.conditions.clusters=15", "method.conditions.freeze_encoder=true",
        "model.class_input=decoder",
    )  # fmt: skip
    runs.pretrain(clusters, quiet(tmp_path / "first", **QUIET), base.tokenizer, cache=base.cache, init_from=base.model)
    tokenizer = runs.load_tokenizer(tmp_path / "first", **QUIET)
    assert not {"class_names", "class_shares"} & set(tokenizer.notes)
    wanted = recipe(f"method.conditions.source={source}", "sampling.guidance=2")
    runs.pretrain(wanted, quiet(tmp_path / "run", **QUIET), tokenizer, cache=base.cache)
    model = mage.load(tmp_path / "run", precision="float32")
    assert len(model.notes.get("class_shares", ())) == (0 if source == "none" else 10)
    assert model.class_names == (() if source == "none" else tuple("0123456789"))
    assert model.generate(2, steps=2).shape == (2, 1, 8, 8)
    assert model.sampling.guidance == (0.0 if source == "none" else 2.0)


def test_clusters_are_numbered_from_the_largest() -> None:
    centres = 10 * torch.eye(3)
    truth = np.array([0] * 5 + [1] * 20 + [2] * 10)
    points = centres[truth] + 0.1 * torch.randn(35, 3, generator=rng.generator(0))
    assert cluster(points, 3, seed=0).tolist() == [2] * 5 + [0] * 20 + [1] * 10


def test_a_strong_direction_does_not_decide_alone() -> None:
    classes = torch.arange(400) % 4
    noise = torch.randn(400, 5, generator=rng.generator(0))
    points = torch.cat([20 * noise[:, :1], 4 * torch.eye(4)[classes] + 0.2 * noise[:, 1:]], dim=1)
    found = whitened(points)
    assert found.shape == (400, 4), "three differences of classes, and the strong direction"
    torch.testing.assert_close(found.norm(dim=1), torch.ones(400))
    clusters = cluster(points, 4, seed=0)
    assert all(len(np.unique(clusters[classes == number])) == 1 for number in range(4))


def test_features_of_the_cache_are_the_models(base: SimpleNamespace) -> None:
    found = token_features(base.model, base.cache, batch_size=400)
    tokens = base.cache.tokens(np.array([7]), np.array([0]))
    alone = torch.nn.functional.normalize(base.model.transformer.features(tokens, "mean"), dim=1)
    torch.testing.assert_close(found[7:8], alone)


def test_unsuitable_conditions_are_refused(base: SimpleNamespace, tmp_path: Path) -> None:
    labels, clusters = (
        recipe(f"method.conditions.source={source}", *EXTRA[source]) for source in ("labels", "clusters")
    )
    with pytest.raises(ValueError, match="have no labels"):
        from_labels(told(labels), None, ())
    with pytest.raises(ValueError, match="needs a token cache"):
        from_labels(told(clusters), None, ())
    with pytest.raises(ValueError, match="needs --init-from"):
        from_cache(told(clusters), base.cache, None, quiet(tmp_path), seed=0)
    with pytest.raises(ValueError, match="choose a smaller"):
        from_cache(replace(told(clusters), clusters=5000), base.cache, base.model, quiet(tmp_path), seed=0)
    assert from_labels(told(named("smoke")), None, ()).names == ()
    with pytest.raises(ValueError, match="class_input=decoder"):
        recipe("method.conditions.source=labels", "method.conditions.freeze_encoder=true")
    with pytest.raises(ValueError, match="no setting 'conditions'"):
        recipe("method={name: mage-c, conditions: {source: labels}}")
    for broken in ({"drop": 1.5}, {"clusters": 1}):
        with pytest.raises(ValueError, match=next(iter(broken))):
            replace(ConditionConfig(), **broken)  # type: ignore[arg-type]


EXTRA = {"labels": (), "clusters": ("model.class_input=decoder",)}


def test_a_fixed_share_of_the_classes_is_hidden() -> None:
    labels = torch.arange(2000) % 10
    hidden = drop_classes(labels, 0.1, 0, Turn(3, 0, Share(2000)))
    share = float((hidden == -1).float().mean())
    assert 0.07 < share < 0.13
    assert torch.equal(hidden, drop_classes(labels, 0.1, 0, Turn(3, 0, Share(2000))))
    assert not torch.equal(hidden, drop_classes(labels, 0.1, 0, Turn(4, 0, Share(2000))))
    assert torch.equal(hidden[hidden >= 0], labels[hidden >= 0])
    assert torch.equal(drop_classes(labels, 0.0, 0, Turn(0, 0, Share(2000))), labels)


def test_caches_of_tokens_without_images_have_no_clusters(base: SimpleNamespace) -> None:
    assert isinstance(base.cache, TokenCache)
    with pytest.raises(ValueError, match="guidance needs a model with classes"):
        base.model.generate(1, guidance=1.0)
    with pytest.raises(TypeError, match="no setting 'temperature'"):
        base.model.generate(1, temperature=1.0)


def test_clusters_are_kept_for_resuming(base: SimpleNamespace, tmp_path: Path) -> None:
    wanted = recipe("method.conditions.source=clusters", "method.conditions.clusters=4")
    kept = quiet(tmp_path, resume=True)
    conditions, first = from_cache(told(wanted), base.cache, base.model, quiet(tmp_path), seed=0)
    again, second = from_cache(told(wanted), base.cache, None, kept, seed=0)
    assert again == conditions
    assert np.array_equal(first.labels, second.labels)
    changed = np.roll(first.labels, 1)
    np.save(tmp_path / "clusters.npy", changed)
    assert np.array_equal(from_cache(told(wanted), base.cache, base.model, kept, seed=0)[1].labels, changed)


def test_an_edit_is_of_no_cluster_unless_asked(base: SimpleNamespace, tmp_path: Path) -> None:
    wanted = recipe("method.conditions.source=clusters", "method.conditions.clusters=4")
    runs.pretrain(wanted, quiet(tmp_path / "run", **QUIET), base.tokenizer, cache=base.cache, init_from=base.model)
    model = mage.load(tmp_path / "run", precision="float32")
    start = torch.full((3, *model.transformer.grid), -1)
    assert torch.equal(model.generate_tokens(3, start=start), model.generate_tokens(3, classes=-1))
    assert not torch.equal(model.generate_tokens(3), model.generate_tokens(3, classes=-1)), "clusters are drawn"


def test_without_a_model_clusters_are_of_the_pixels_that_the_tokenizer_restores(
    base: SimpleNamespace, tmp_path: Path
) -> None:
    wanted = replace(ConditionConfig(), source="clusters", clusters=8)
    conditions, cache = from_cache(wanted, base.cache, None, quiet(tmp_path), seed=0, tokenizer=base.tokenizer)
    assert sum(conditions.shares) == pytest.approx(1)
    assert len(conditions.names) == 8
    restored = torch.cat(
        [base.tokenizer.decode_tokens(base.cache.tokens(n, np.zeros_like(n))) for n in [np.arange(len(base.cache))]]
    )
    within = sum(
        restored[cache.labels == label].var(0, correction=0).sum() * np.mean(cache.labels == label)
        for label in range(8)
    )
    assert within < 0.9 * restored.var(0, correction=0).sum(), "images of a cluster are alike"
