"""Everything once on a CUDA GPU: `make test-gpu`. What is computed is tested elsewhere; here, that it runs there."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms.v2.functional import to_pil_image

import mage
from mage import rng, runs
from mage.benchmarks.counters import count_call
from mage.benchmarks.graphs import count_graphs
from mage.building import build
from mage.data.batches import Batch
from mage.data.datasets import Subset, load_dataset
from mage.data.device_images import DeviceImages
from mage.data.device_tokens import DeviceTokens, Place, place_tokens
from mage.data.loaders import TrainLoader
from mage.data.own_tokens import write_tokens
from mage.data.token_batches import token_batches
from mage.data.transforms import TransformConfig, build_transform
from mage.evaluation.extractors import build_extractor
from mage.evaluation.generation import compare
from mage.evaluation.representation import Representation
from mage.evaluation.seen import Reference
from mage.evaluation.suite import build_protocols, measure_representation
from mage.masking import Mask, MaskRatioConfig, random_mask
from mage.nn.graphed import Graphed
from mage.nn.grids import area
from mage.nn.norms import GroupNorm
from mage.recipes import named
from mage.recipes.finetune import FINETUNES
from mage.runs.finetune import finetune
from mage.runs.generation import look_at_dataset, look_at_model
from mage.runs.production import Production
from mage.settings import override
from mage.share import Share
from mage.tokenizers import VQGAN, QuantizerConfig, VQGANConfig
from mage.training.engine import Trainer
from mage.training.transfer import on_device
from tests.reference.launches import quiet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: make test-gpu")
GPU = "cuda"
SAMPLERS: list[dict[str, Any]] = [
    {},
    {"order": "halton"},
    {"order": "halton", "reuse": 3},
    {"order": "random"},
    {"revisions": 2},
    {"revisions": 2, "revise_by": "random"},
    {"top_p": 0.9, "top_k": 5},
    {"encoder_keep": 0.5},
]


@pytest.fixture(scope="module")
def model() -> mage.Mage:
    recipe = named("smoke")
    return build(recipe.model, tokenizer=recipe.tokenizer, device=GPU)


@pytest.mark.parametrize("settings", SAMPLERS, ids=str)
def test_it_generates_with_and_without_classes(model: mage.Mage, settings: dict[str, Any]) -> None:
    assert model.generate(6, steps=3, **settings).device.type == GPU
    recipe = named("smoke")
    sizes = replace(recipe.model, num_classes=5, class_input="decoder")
    guided = build(sizes, tokenizer=recipe.tokenizer, device=GPU)
    made = guided.generate(6, steps=3, classes=[0, 1, 2, 3, 4, -1], guidance=2.0, **settings)
    assert made.isfinite().all()


def test_images_on_either_device_are_edited(model: mage.Mage) -> None:
    images, mask = torch.rand(3, 1, 8, 8), torch.zeros(8, 8, dtype=torch.bool)
    mask[:4] = True
    edited = model.edit(images, mask, steps=2, paste=True)
    assert torch.equal(edited.cpu()[:, :, 4:], images[:, :, 4:])
    assert model.edit(images.cuda(), mask.cuda(), steps=2).shape == images.shape
    assert model.edit(torch.rand(2, 1, 20, 12), torch.ones(20, 12, dtype=torch.bool), steps=2).shape == (2, 1, 20, 12)
    assert model.variations(images, steps=2).shape == model.reconstruct(images).shape == images.shape


def test_every_protocol_of_representations_runs(model: mage.Mage, tmp_path: Path) -> None:
    train, test = (load_dataset("digits", split=split) for split in ("train", "test"))
    settings = {
        "corruptions": {"kinds": ("gaussian_noise",), "severities": (1,), "test_images": 40},
        "attacks": {"test_images": 40},
        "fewshot": {"counts": (1,), "draws": 2},
    }
    subject = Representation(model, Subset(train, range(600)), Subset(test, range(100)))
    found = measure_representation(subject, build_protocols(settings=settings))
    assert found.metrics["linear_probe_accuracy"] > 0.1
    recipe = override(FINETUNES["small"](), ["data.name=digits", "optim.epochs=1", "optim.batch_size=64"])
    assert finetune(recipe, quiet(tmp_path / "tuned", device=GPU), model).steps == 23


def test_generated_images_are_measured(model: mage.Mage) -> None:
    extractor = build_extractor("efflite0", device=GPU)
    seen = look_at_dataset(Subset(load_dataset("digits"), range(60)), extractor, size=(8, 8))
    made = look_at_model(model, Production(60, 0, 30, (), {"steps": 2}), extractor)
    metrics = compare(made, Reference.of("digits", seen), "efflite0").metrics
    assert all(torch.tensor(value).isfinite() for value in metrics.values())


def test_tokenizer_and_networks_train_and_resume(tmp_path: Path) -> None:
    recipe = override(named("smoke"), ["data.views=2"])
    runs.train_tokenizer(recipe, quiet(tmp_path / "tokenizer", device=GPU))
    tokenizer = runs.load_tokenizer(tmp_path / "tokenizer", device=GPU)
    cache = runs.tokenize(recipe, quiet(tmp_path / "tokens", device=GPU, workers=2), tokenizer)
    for name, changes in (("mage", []), ("mage_c", ["method={name: mage-c}"])):
        changed = override(recipe, changes)
        source = None if name == "mage_c" else cache  # the one from live images, the other from the cache
        result = runs.pretrain(changed, quiet(tmp_path / name, device=GPU), tokenizer, cache=source)
        assert result.steps == recipe.pretraining.steps
    for method in ("mae", "simclr"):
        changes = ["data.channels=1", f"method={{name: {method}, patch_size: 2}}", "tokenizer=null"]
        baseline = override(recipe, changes)
        runs.pretrain(baseline, quiet(tmp_path / method, device=GPU, workers=2))
    again = runs.pretrain(recipe, quiet(tmp_path / "mage", device=GPU, resume=True), tokenizer, cache=cache)
    assert again.steps == recipe.pretraining.steps


def test_group_norm_takes_the_short_way_and_agrees() -> None:
    norm = GroupNorm(4, 32).cuda()
    x = torch.randn(2, 32, 16, 16, device=GPU).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast(GPU, torch.bfloat16):
        found = norm(x)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.float(), torch.nn.GroupNorm(4, 32).cuda()(x.float()), atol=0.03, rtol=0.03)


def test_norm_and_silu_have_pytorchs_gradients_and_keep_the_layout() -> None:
    norm = GroupNorm(4, 32).cuda()
    x = torch.randn(2, 32, 16, 16, device=GPU).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    with torch.autocast(GPU, torch.bfloat16):
        result = norm.with_silu(x)
    assert result.dtype == torch.bfloat16
    assert result.is_contiguous(memory_format=torch.channels_last)
    found = torch.autograd.grad(result, (x, norm.weight), torch.ones_like(result))
    wide = x.detach().float().requires_grad_()
    exact = torch.nn.functional.silu(torch.nn.GroupNorm.forward(norm, wide))
    expected = torch.autograd.grad(exact, (wide, norm.weight), torch.ones_like(exact))
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(found, expected, strict=True):
        assert float((one.float() - other).abs().max()) < 0.03 * float(other.abs().max())


def test_a_tokenizer_trains_in_the_channels_last_layout() -> None:
    config = VQGANConfig((16, 16), 3, 32, (1, 2), 1, quantizer=QuantizerConfig("ema", 9))
    network = VQGAN(config).to(GPU)
    layouts = []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_pre_hook(lambda _, inputs: layouts.append(inputs[0]))
    with torch.autocast(GPU, torch.bfloat16):
        network(torch.rand(2, 3, 16, 16, device=GPU)).reconstruction.float().mean().backward()
    assert layouts
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in layouts)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_encoding_and_decoding_are_the_same_with_graphs(model: mage.Mage, precision: Any) -> None:
    plain, replayed = (
        mage.Mage.of(model.parts, device=GPU, precision=precision, graphs=graphs) for graphs in (False, True)
    )
    for seed in range(3):
        images = torch.rand(5, 1, 8, 8, generator=rng.generator(seed, "graphed"))
        ids = plain.encode(images, batch_size=2)  # the last batch is a shape of its own
        assert float((replayed.encode(images, batch_size=2) == ids).float().mean()) > 0.98
        pixels = replayed.decode_tokens(ids, batch_size=2)
        torch.testing.assert_close(pixels, plain.decode_tokens(ids, batch_size=2), atol=0.02, rtol=0)


@pytest.mark.parametrize("sampling", [{}, {"guidance": 2.0}, {"order": "halton", "revisions": 1}], ids=str)
def test_sampling_with_graphs_gives_the_tokens_of_plain_passes(sampling: dict[str, Any]) -> None:
    recipe = named("smoke")
    sizes = replace(recipe.model, num_classes=5, class_input="decoder")
    parts = build(sizes, tokenizer=recipe.tokenizer, device=GPU).parts
    plain, replayed = (mage.Mage.of(parts, device=GPU, precision="float32", graphs=graphs) for graphs in (False, True))
    for seed in range(2):
        expected = plain.generate_tokens(5, seed=seed, batch_size=2, steps=4, classes=1, **sampling)
        tokens = replayed.generate_tokens(5, seed=seed, batch_size=2, steps=4, classes=1, **sampling)
        assert float((tokens == expected).float().mean()) > 0.98, "all but ties that rounding breaks"


def test_graphs_recorded_in_inference_mode_are_replayed_outside_of_it_and_failures_leave_the_stream() -> None:
    double = Graphed(lambda x: 2 * x)
    here = torch.cuda.current_stream()
    with torch.inference_mode():
        assert double(torch.ones(3, device=GPU)).tolist() == [2, 2, 2]
    with torch.no_grad():
        assert double(torch.full((3,), 4.0, device=GPU)).tolist() == [8, 8, 8]
        with pytest.raises(ValueError, match="cannot be recorded"):
            Graphed(lambda x: x * float(x.sum()))(torch.ones(3, device=GPU))
    assert torch.cuda.current_stream() == here


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_graphs_are_recorded_on_the_device_of_their_inputs() -> None:
    double = Graphed(lambda x: 2 * x)
    with torch.no_grad():
        for value in (1.0, 3.0):
            for number in range(2):
                found = double(torch.full((3,), value, device=f"cuda:{number}"))
                assert found.tolist() == [2 * value] * 3


def test_tokens_on_the_gpu_and_batches_copied_ahead_are_those_of_the_files(tmp_path: Path) -> None:
    ids = torch.randint(2**16, (300, 2, 4, 4), generator=rng.generator(0, "placed"))
    cache = write_tokens(tmp_path / "tokens", ids, num_codes=2**16, views=True, shard_images=128)
    device = torch.device(GPU)
    assert isinstance(place_tokens(cache, device), DeviceTokens)

    def batches(place: Place) -> Iterator[Batch]:
        return token_batches(cache, share=Share(70), seed=0, device=device, place=place)

    expected = itertools.islice(batches("host"), 10)
    for one, here, ahead in zip(expected, batches("device"), on_device(batches("host"), device), strict=False):
        for name in one:
            assert here[name].device.type == ahead[name].device.type == GPU
            assert torch.equal(here[name].cpu(), one[name])
            assert torch.equal(ahead[name].cpu(), one[name])


def test_a_mask_is_the_same_on_the_gpu() -> None:
    mask = random_mask(MaskRatioConfig(per_image=True), 5, 12, rng.generator(0))
    moved = mask.to(torch.device(GPU))
    for name in ("masked", "dropped", "kept_index"):
        assert torch.equal(getattr(moved, name).cpu(), getattr(mask, name))


def test_a_training_step_is_captured_as_a_cuda_graph_at_every_ratio(model: mage.Mage) -> None:
    """One capture is replayed with masks of other ratios: nothing in it waits for the device or changes shape."""
    network = copy.deepcopy(model.require_generator()).float().train().requires_grad_(True).to(GPU)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    length = area(network.grid)
    ids = torch.randint(network.vocabulary.num_codes, (8, length), device=GPU)

    def mask_of(ratio: float) -> Mask:
        config = MaskRatioConfig(mode=ratio, std=0.0, low=0.5, high=1.0)
        return random_mask(config, 8, length, rng.generator(0, f"ratio {ratio}")).to(torch.device(GPU))

    mask = mask_of(0.5)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            network.loss(network(ids, mask), ids, mask).backward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = network.loss(network(ids, mask), ids, mask)
        loss.backward()
    for ratio in (0.5, 0.75, 1.0):
        other = mask_of(ratio)
        expected = float(network.loss(network(ids, other), ids, other))
        for name in ("masked", "dropped", "kept_index"):
            getattr(mask, name).copy_(getattr(other, name))
        graph.replay()
        assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_training_step_never_waits_for_the_device(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch raises an error wherever it would wait; the first step, which may compile, is left alone."""
    step = Trainer.train_step

    def watched(trainer: Trainer) -> None:
        torch.cuda.set_sync_debug_mode("error" if trainer.step else "default")
        try:
            step(trainer)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Trainer, "train_step", watched)
    counts = count_graphs(tmp_path, steps=4, compiled=compiled, device=torch.device(GPU))
    assert (counts.graph_breaks, counts.recompilations, counts.host_syncs_per_step) == (0, 0, 0)
    assert counts.losses.isfinite().all()


def test_waits_launches_and_memory_of_a_call_are_counted() -> None:
    weights = torch.ones(1024, 1024, device="cuda")

    def product() -> float:
        return float((weights @ weights).sum())

    product()
    counts = count_call(product, torch.device("cuda"))
    assert counts["host_syncs"] >= 1
    assert counts["kernel_launches"] >= 2
    assert counts["peak_bytes"] >= 2 * 4 * 1024**2


def test_jpeg_files_are_decoded_and_augmented_on_the_gpu(tmp_path: Path) -> None:
    pytest.importorskip("torchcodec", reason="pip install torchcodec")
    levels = torch.linspace(0, 255, 48).byte().expand(3, 40, 48)
    for number in range(8):
        path = tmp_path / "pictures" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        to_pil_image(levels.roll(number, -1)).save(path, quality=95)
    dataset = load_dataset(tmp_path / "pictures", split="all")
    transform = build_transform(TransformConfig(size=(16, 16), augmentation="crop_flip"))
    loaders = [TrainLoader(dataset, transform, share=Share(8), seed=0) for _ in range(2)]
    device_images = DeviceImages(loaders[1], torch.device(GPU))
    theirs, ours = next(iter(loaders[0])), next(iter(device_images))
    assert not device_images.told, "the GPU decoded, not the CPU in its place"
    assert ours["images"].is_cuda
    assert torch.equal(ours["index"].cpu(), theirs["index"])
    assert (ours["images"].cpu().int() - theirs["images"].int()).abs().float().mean() < 3, "levels"
