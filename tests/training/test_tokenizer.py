"""Training a tokenizer against a discriminator: both learn, runs resume, what goes wrong is said."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import mage
from mage import runs
from mage.recipes import named
from mage.recipes.schema import Recipe
from mage.settings import override
from mage.share import Share, Turn
from mage.tokenizers import VQGAN
from mage.tokenizers.quantizers import QuantizerConfig, RunningMeanQuantizer
from mage.training import adversarial
from mage.training.checkpoint import newest_checkpoint, read_checkpoint
from mage.training.optim import OptimConfig
from mage.training.runlog import read_log
from mage.training.tokenizer import TokenizerLossConfig, TokenizerTraining
from tests.reference.launches import quiet

GAME = [
    "tokenizer_loss.adversarial.weight=0.5",
    "tokenizer_loss.adversarial.discriminator.levels=1",
    "tokenizer_loss.adversarial.discriminator.width=8",
    "tokenizer_loss.adversarial.start=0.25",
]
STYLE = [
    "tokenizer_loss.adversarial.discriminator.kind=style",
    "tokenizer_loss.adversarial.loss=non_saturating",
    "tokenizer_loss.adversarial.r1=10",
    "tokenizer_loss.adversarial.r1_every=2",
    "tokenizer_loss.adversarial.adaptive=false",
]


def recipe_with(changes: list[str]) -> Recipe:
    return override(named("smoke"), GAME + changes)


def task_of(recipe: Recipe) -> TokenizerTraining:
    torch.manual_seed(0)
    return TokenizerTraining(
        VQGAN(recipe.tokenizer),
        lambda start, rank, world: iter(()),
        num_images=64,
        optim=recipe.tokenizer_training,
        loss=recipe.tokenizer_loss,
        recipe={},
        validation=torch.zeros(8, 1, 8, 8, dtype=torch.uint8),
    )


@pytest.mark.parametrize("changes", [[], STYLE], ids=["taming", "maskgit"])
def test_a_run_with_a_discriminator_resumes_to_the_last_bit(changes: list[str], tmp_path: Path) -> None:
    recipe = recipe_with(changes)
    for name in ("whole", "cut"):
        runs.train_tokenizer(recipe, quiet(tmp_path / name))
    newest = newest_checkpoint(tmp_path / "cut")
    assert newest is not None
    final = torch.load(newest, weights_only=True)
    newest.unlink()  # as if the process had died between step 6 and step 12
    runs.train_tokenizer(recipe, quiet(tmp_path / "cut", resume=True))
    again = torch.load(newest, weights_only=True)
    for part in ("tokenizer", "discriminator"):
        assert all(torch.equal(tensor, again["modules"][part][name]) for name, tensor in final["modules"][part].items())
    averages = (state["averages"]["tokenizer"] for state in (final, again))
    assert all(torch.equal(a, b) for a, b in zip(*(average.values() for average in averages), strict=True))
    first, second = ([line for line in read_log(tmp_path / run) if "adversarial" in line] for run in ("whole", "cut"))
    assert [line["discriminator/loss"] for line in first] == [line["discriminator/loss"] for line in second]
    assert isinstance(mage.load(tmp_path / "cut").tokenizer, VQGAN)


def test_the_discriminator_is_used_from_its_start_on(tmp_path: Path) -> None:
    recipe = recipe_with(["run.log_every=1"])
    runs.train_tokenizer(recipe, quiet(tmp_path / "run"))
    joined = [line["step"] for line in read_log(tmp_path / "run") if "discriminator/loss" in line]
    assert joined == list(range(4, 13))  # of 12 steps the first quarter is without
    longer = recipe_with(["run.log_every=1", "tokenizer_training.steps=60"])  # of which it would be 15
    stopped = override(longer, ["tokenizer_training.steps=14"])
    runs.train_tokenizer(stopped, quiet(tmp_path / "run", resume=True))
    runs.train_tokenizer(override(longer, ["tokenizer_training.steps=60"]), quiet(tmp_path / "run", resume=True))
    joined = [line["step"] for line in read_log(tmp_path / "run") if "discriminator/loss" in line]
    assert joined == list(range(4, 61)), "nor does it leave again when the run becomes longer"


@pytest.mark.parametrize("quantizer", ["kind=ema", "kind=normalized", "keep_alive=true"])
@pytest.mark.parametrize("parts", [2, 4])
def test_a_codebook_moves_once_a_step_however_many_parts_the_batch_has(
    tmp_path: Path, quantizer: str, parts: int
) -> None:
    """One step from a codebook that has begun: words, their sums and use are those of the whole batch."""
    changes = [f"tokenizer.quantizer.{quantizer}", "tokenizer.quantizer.warmup_steps=2", "tokenizer_training.steps=4"]
    recipe = override(named("smoke"), changes)
    runs.train_tokenizer(recipe, quiet(tmp_path / "begun"))
    begun = mage.load(tmp_path / "begun", device="cpu").require_tokenizer()
    found = []
    for count in (1, parts):
        out, changes = tmp_path / str(count), [f"tokenizer_training.accumulation={count}", "tokenizer_training.steps=1"]
        runs.train_tokenizer(override(recipe, changes), quiet(out), init_from=begun)
        newest = newest_checkpoint(out)
        assert newest is not None
        found.append(read_checkpoint(newest)["modules"]["tokenizer"])
    names = [name for name in found[0] if name.startswith("quantizer.")]
    if quantizer == "keep_alive=true":
        names.remove("quantizer.codebook")  # moved by the optimizer
    assert int(found[1]["quantizer.life.steps"]) == 5
    assert not torch.equal(found[0]["quantizer.life.usage"], begun.state_dict()["quantizer.life.usage"])
    for name in names:
        torch.testing.assert_close(found[1][name], found[0][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["tokenizer_loss.adversarial.adaptive=false"], ""),
        ([], "the weight of the adversarial loss is computed in each of them"),
        (
            ["tokenizer.quantizer.entropy=0.1"],
            "the weight of the adversarial loss and the codebook's entropy are",
        ),
    ],
)
def test_what_depends_on_the_parts_of_a_batch_is_known(changes: list[str], told: str) -> None:
    found = task_of(recipe_with(changes)).of_parts
    assert found.startswith(told)
    assert bool(found) == bool(told)


@pytest.mark.parametrize("quantizer", ["kind=vq", "kind=normalized", "kind=lfq"])
def test_a_codebook_keeps_all_digits_under_autocast(quantizer: str) -> None:
    """Of vectors of length 30, whose distances bfloat16 rounds to whole units: the loss, and words from k-means."""
    changes = [quantizer, "entropy=0.1", "num_codes=16", "warmup_steps=0"]
    changes = [f"tokenizer.quantizer.{change}" for change in changes] + ["tokenizer.code_width=4"]
    vectors = 15 * torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    found = []
    for enabled in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = VQGAN(override(named("smoke"), changes).tokenizer).train()
        network.encoder = torch.nn.Identity()
        network.decoder = torch.nn.Identity()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses = [network(vectors).quantizer_loss for _ in range(3)]
        found.append((torch.stack(losses), network.quantizer.words()))
    for exact, under_autocast in zip(*found, strict=True):
        torch.testing.assert_close(under_autocast, exact, rtol=1e-5, atol=1e-5)


def test_a_warm_up_is_counted_in_steps_and_not_in_parts() -> None:
    quantizer = RunningMeanQuantizer(QuantizerConfig(kind="ema", num_codes=4, warmup_steps=2), 4).train()
    quantizer.life.parts = 3
    latent = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    through = [torch.equal(quantizer(latent).vectors, latent) for _ in range(9)]
    assert through == [True] * 6 + [False] * 3
    assert int(quantizer.life.steps) == 3


def test_each_loss_moves_its_own_network_only() -> None:
    task = task_of(recipe_with(["tokenizer_loss.adversarial.start=0"]))
    batch = {"images": torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)}
    for loss in task.losses(task.modules, batch, Turn(0, 0, Share(4))):
        for module in task.modules.values():
            module.zero_grad()
        loss.value.backward()
        for name, module in task.modules.items():
            moved = any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
            assert moved == (name == loss.module), f"{loss.module}'s loss, {name}'s weights"


def test_the_push_is_balanced_at_the_decoders_last_weights() -> None:
    task = task_of(recipe_with(["tokenizer_loss.adversarial.start=0", "tokenizer_loss.adversarial.weight=1"]))
    tokenizer = task.modules["tokenizer"].eval()  # no codebook that moves between the two passes
    images = torch.rand(4, 1, 8, 8)
    last = tokenizer.get_parameter("decoder.out.weight")
    assert task._adversary is not None
    output = tokenizer(images)
    total = (output.reconstruction - images).square().mean() + output.quantizer_loss
    pull = torch.autograd.grad(total, last, retain_graph=True)[0].norm()
    push, readings = task._adversary.push(output.reconstruction, total, last)
    assert torch.autograd.grad(push, last)[0].norm().item() == pytest.approx(pull.item(), rel=1e-2)
    assert readings["adversarial_weight"].value > 0


@pytest.mark.parametrize("kind", ["patch", "style"])
def test_a_discriminator_learns_to_tell_images_from_bad_copies(kind: str) -> None:
    config = adversarial.AdversarialConfig(weight=1, loss="non_saturating", r1=0.1, r1_every=4)
    from mage.tokenizers.discriminator import DiscriminatorConfig, build_discriminator

    torch.manual_seed(0)
    network = build_discriminator(DiscriminatorConfig(kind=kind, width=8, levels=1), 1, (8, 8))  # type: ignore[arg-type]
    adversary = adversarial.Adversary(network, config, steps=100, precision="float32")
    assert not adversary.takes_part(24)
    assert adversary.takes_part(25)
    optimizer = torch.optim.AdamW(adversary.module.parameters(), lr=3e-3, betas=config.betas)
    for step in range(80):
        real = (torch.rand(16, 1, 8, 8) > 0.5).float()
        loss, readings = adversary.learn(adversary.module, real, real * 0.5 + 0.25, step=step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert readings["discriminator/right"].value > 0.9
    assert "discriminator/r1" not in readings  # step 79 is none of every fourth from the start on


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"discriminator/right": 0.995}, "learns nothing from it"),
        ({"discriminator/largest": 300.0}, "diverges"),
        ({"adversarial_weight": 5000.0}, "vanished"),
        ({"codes_used": 0.1}, "collapsed to 10.0%"),
        ({"discriminator/right": 0.8, "discriminator/largest": 3.0, "adversarial_weight": 2.0, "codes_used": 1.0}, ""),
    ],
)
def test_training_problems_give_warnings(metrics: dict[str, float], words: str) -> None:
    found = task_of(recipe_with([])).warnings(metrics)
    assert len(found) == bool(words)
    assert all(words in one.sentence and ("set" in one.sentence or "lower" in one.sentence) for one in found)


def test_a_discriminator_that_diverges_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = recipe_with(["tokenizer_loss.adversarial.base_learning_rate=30", "run.log_every=1"])
    with caplog.at_level(logging.WARNING):
        result = runs.train_tokenizer(recipe, quiet(tmp_path / "run"))
    said = [record.getMessage() for record in caplog.records if "diverges" in record.getMessage()]
    assert len(said) == 1
    assert "lower adversarial.base_learning_rate" in said[0]
    assert [warning.kind for warning in result.warnings].count("discriminator_diverges") == 1


def test_a_collapsed_codebook_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changes = ["tokenizer.quantizer.kind=vq", "tokenizer.code_width=16", "tokenizer.quantizer.num_codes=1024"]
    with caplog.at_level(logging.WARNING):
        runs.train_tokenizer(override(named("smoke"), changes), quiet(tmp_path / "run"))
    assert any("the codebook has collapsed" in record.getMessage() for record in caplog.records)


def test_multispectral_images_train_against_a_discriminator_but_not_a_perceptual_network(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(20):
        image = random.random((10, 12, 6), dtype=np.float32)
        (tmp_path / "bands").mkdir(exist_ok=True)
        np.save(tmp_path / "bands" / f"{index}.npy", image)
    recipe = recipe_with(["tokenizer_loss.perceptual=0.1", "tokenizer.channels=6", f"data.name={tmp_path / 'bands'}"])
    with pytest.raises(ValueError, match="not 6 channels"):
        runs.train_tokenizer(recipe, quiet(tmp_path / "run"))
    runs.train_tokenizer(override(recipe, ["tokenizer_loss.perceptual=0"]), quiet(tmp_path / "run"))
    tokenizer = mage.load(tmp_path / "run").tokenizer
    assert tokenizer.decode(tokenizer.encode(torch.rand(2, 6, 8, 8))).shape == (2, 6, 8, 8)


def test_the_discriminators_optimizer_is_constant_adam() -> None:
    config = adversarial.AdversarialConfig(base_learning_rate=2e-4).optim(OptimConfig(batch_size=512, steps=10))
    assert (config.optimizer, config.warmup, config.end_learning_rate, config.ema_decay) == ("adamw", 0, 1, 0)
    assert config.peak_learning_rate == 4e-4


@pytest.mark.parametrize("change", [{"weight": -1.0}, {"start": 1.0}, {"r1_every": 0}])
def test_wrong_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="adversarial"):
        TokenizerLossConfig(adversarial=adversarial.AdversarialConfig(**change))  # type: ignore[arg-type]


@pytest.mark.parametrize(("frozen", "kinds"), [(False, ["codebook_collapse"]), (True, [])])
def test_a_codebook_that_does_not_change_cannot_collapse(frozen: bool, kinds: list[str]) -> None:
    task = task_of(override(named("smoke"), [f"tokenizer_loss.freeze_encoder={frozen}"]))
    assert [warning.kind for warning in task.warnings({"codes_used": 0.1})] == kinds
    assert not list(task.warnings({"codes_used": 0.5}))
