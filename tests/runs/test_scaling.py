"""What a training costs on paper is what small trainings cost when they are measured."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from timm.models.vision_transformer import Attention
from torch import Tensor

from mage.cli.options import plan
from mage.masking import mask_from_noise
from mage.models import MAGEConfig, MAGETransformer
from mage.nn.blocks import choose_attention
from mage.recipes import Choice, named, resolve
from mage.runs import hardware, pace, scaling
from mage.runs.budget import budget
from mage.runs.hardware import HARDWARE
from mage.runs.scaling import Kernels, Strategy, activation_bytes, network_bytes, training_cost
from mage.training.engine import Trainer
from mage.training.run import RunConfig
from mage.training.task import Task
from mage.vocabulary import Vocabulary

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
IMAGENET = 1_281_167
SIZES = MAGEConfig(64, 3, 4, decoder_width=48, decoder_depth=2, decoder_heads=4)


def kept_bytes(config: MAGEConfig, *, fused: bool, bf16: bool, images: int = 6) -> float:
    """Bytes that a forward pass keeps for the backward pass, without the weights and ids, as autograd holds them."""
    network = MAGETransformer(config, Vocabulary.fresh(100), (8, 8))
    choose_attention(network, CPU)
    for layer in network.modules():
        if isinstance(layer, Attention):
            layer.fused_attn = fused  # type: ignore[misc]
    ids = torch.zeros(images, 64, dtype=torch.int64)
    mask = mask_from_noise(torch.rand(images, 64), 0.75)
    parameters = {weight.data_ptr() for weight in network.parameters()}
    kept: dict[int, Tensor] = {}  # holds the tensors, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = network(ids, mask)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            network.loss(output, ids, mask)
    shapes = {tuple(weight.shape) for weight in network.parameters() if weight.ndim == 2}
    shapes |= {shape[::-1] for shape in shapes}  # copies of weights in bfloat16 are counted apart
    return float(sum(t.untyped_storage().nbytes() for t in kept.values() if tuple(t.shape) not in shapes))


@pytest.mark.parametrize(
    ("changes", "fused", "bf16"),
    [
        ({}, False, False),
        ({"dropout": 0.0}, False, False),
        ({"dropout": 0.0}, True, False),
        ({}, False, True),
        ({"dropout": 0.0}, True, True),
    ],
    ids=str,
)
def test_activations_are_those_that_autograd_keeps(changes: dict[str, Any], fused: bool, bf16: bool) -> None:
    config, number = replace(SIZES, **changes), 2 if bf16 else 4
    expected = 6 * activation_bytes(config, 64, 100, 0.5, 0.75, Kernels(number, fused=fused, mask=number))
    assert kept_bytes(config, fused=fused, bf16=bf16) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_state_of_a_training_takes_as_many_bytes_as_planned(
    optimizer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured: dict[str, float] = {}

    def step(task: Task, device: torch.device, precision: str) -> float:
        trainer = Trainer(task, tmp_path, 0, {}, precision=precision, device=device)
        (module,), (optimizer,) = task.modules.values(), trainer.optimizers.values()
        weights, gradients = list(module.parameters()), list[int]()
        for weight in weights:
            weight.register_post_accumulate_grad_hook(lambda weight: gradients.append(weight.grad.nbytes))
        with trainer.logging(RunConfig(log_every=100), progress=False):
            trainer.train_step()
        moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
        measured["weight_bytes"] = sum(weight.nbytes for weight in weights)
        measured["gradient_bytes"] = sum(gradients)
        measured["optimizer_bytes"] = sum(moment.nbytes for moment in moments)
        measured["average_bytes"] = sum(
            weight.nbytes for weight in trainer.networks.averages["mage"].module.parameters()
        )
        return 1.0

    monkeypatch.setattr(pace, "_step_seconds", step)
    recipe = resolve(Choice("smoke", changes=(f"pretraining.optimizer={optimizer}", "pretraining.batch_size=2")))
    pace.pretraining_pace(recipe, CPU, "float32")
    cost = training_cost(recipe, 1000, "cpu").as_dict()
    for name, nbytes in measured.items():
        assert cost[name] == pytest.approx(nbytes, rel=0.03), name  # a vector of one number has no moments to speak of


def ring(devices: int, numbers: int) -> int:
    """Numbers that a device sends in one round of a ring: a chunk to the neighbour, devices - 1 times."""
    chunks = [[0] * devices for _ in range(devices)]
    for device in range(devices):
        chunks[device][device] = 1
    sent = 0
    while not all(all(row) for row in chunks):
        before = [list(row) for row in chunks]
        for device in range(devices):
            for chunk in range(devices):
                chunks[(device + 1) % devices][chunk] |= before[device][chunk]
        sent += numbers // devices
    return sent


@pytest.mark.parametrize("devices", [1, 2, 8, 64])
@pytest.mark.parametrize(
    ("strategy", "parts", "rounds"), [("ddp", 1, 2), ("ddp", 4, 2), ("fsdp", 1, 3), ("fsdp", 4, 9)]
)
def test_bytes_over_the_network_are_those_of_rings(devices: int, strategy: Strategy, parts: int, rounds: int) -> None:
    assert network_bytes(6400, devices, strategy, parts) == pytest.approx(rounds * ring(devices, 6400))


def test_shares_of_the_peak_are_those_that_were_measured() -> None:
    gpu, cpu = (json.loads((ROOT / "results" / f"speed_{name}.json").read_text())["metrics"] for name in ("gpu", "cpu"))
    reached = gpu["gflops_pretrain_b64"] / 1000 / HARDWARE["h200"].bf16_tflops
    assert reached == pytest.approx(hardware.MEASURED_SHARE, rel=0.01)
    assert HARDWARE["cpu"].bf16_tflops == pytest.approx(cpu["ceiling_gflops_matmul_bf16"] / 1000, rel=0.01)
    assert HARDWARE["cpu"].float32_tflops == pytest.approx(cpu["ceiling_gflops_matmul_float32"] / 1000, rel=0.01)
    assert cpu["ceiling_share_pretrain_b4"] == pytest.approx(hardware.CPU_SHARE, rel=0.01)
    assert 16 * gpu["seconds_pretrain_ours_b16"] / 20 == pytest.approx(hardware.BLOCK_SECONDS, rel=0.01)


def test_a_planned_step_takes_what_a_step_took_on_the_measured_gpu() -> None:
    gpu = json.loads((ROOT / "results" / "speed_gpu.json").read_text())["metrics"]
    for images in (16, 64):
        recipe = resolve(Choice("imagenet-base", changes=(f"pretraining.batch_size={images}",)))
        planned = training_cost(recipe, IMAGENET, "h200").step_seconds
        assert planned == pytest.approx(images * gpu[f"seconds_pretrain_ours_b{images}"], rel=0.1)


@pytest.mark.parametrize(("recipe", "days"), [("imagenet-base", 5.5), ("imagenet-large", 10.7)])
def test_the_published_duration_means_a_plausible_share_of_64_v100(recipe: str, days: float) -> None:
    tokenizing = 0.13e12  # FLOPs of encoding an image, which the published training does in every step
    images = 1600 * IMAGENET
    share = images * (budget(named(recipe), IMAGENET)["flops_per_image"] + tokenizing) / (64 * days * 86_400) / 125e12
    assert 0.1 < share < 0.3  # of the peak in float16


def test_few_images_take_the_time_of_launching_and_reach_less_of_the_peak() -> None:
    few, many, assumed = (
        training_cost(named("imagenet-base"), IMAGENET, "h100", devices=devices, share=share)
        for devices, share in ((256, None), (16, None), (256, 0.4))
    )
    assert few.compute_seconds == pytest.approx(20 * hardware.BLOCK_SECONDS)
    assert few.share < 0.05
    assert many.share == pytest.approx(hardware.MEASURED_SHARE)
    assert assumed.share == pytest.approx(0.4), "a share that is given is taken as it is"
    assert assumed.compute_seconds < few.compute_seconds / 5


def test_more_devices_are_faster_and_cost_more_device_days() -> None:
    costs = [training_cost(named("imagenet-base"), IMAGENET, "h100", devices=2**power) for power in range(9)]
    for fewer, more in pairwise(costs):
        assert more.seconds <= fewer.seconds
        assert more.device_days >= 0.999 * fewer.device_days
        assert more.memory_bytes < fewer.memory_bytes or fewer.devices == 1  # buckets come with the second device


def test_shards_take_less_memory_and_more_network() -> None:
    ddp, fsdp = (
        training_cost(named("imagenet-large"), IMAGENET, "h100", devices=64, strategy=s) for s in get_args(Strategy)
    )
    for part in ("weight", "gradient", "optimizer", "average"):
        assert getattr(fsdp, f"{part}_bytes") < getattr(ddp, f"{part}_bytes") / 10
    assert fsdp.activation_bytes == ddp.activation_bytes
    assert fsdp.network_bytes == pytest.approx(1.5 * ddp.network_bytes)


def test_a_device_without_bfloat16_is_planned_in_float32() -> None:
    assert HARDWARE["v100"].tflops("auto") == HARDWARE["v100"].float32_tflops
    with pytest.raises(ValueError, match="v100 does not multiply bfloat16"):
        training_cost(named("imagenet-base"), IMAGENET, "v100", precision="bf16")


def test_the_command_offers_what_the_library_has() -> None:
    assert tuple(HARDWARE) == plan.DEVICES
    assert get_args(plan.Strategy) == get_args(Strategy)
    documented = Path(plan.__file__).read_text().split('"auto"\n')[1].split('"""')[1]
    assert all(name in documented for name in HARDWARE)


@pytest.mark.parametrize(
    ("recipe", "keywords", "message"),
    [
        ("imagenet-base", {"devices": 100}, "a batch of 4,096 cannot be shared by 100 devices"),
        ("imagenet-base", {"share": 0.0}, "a share of the peak above 0 and at most 1, not 0.0"),
        ("cifar10-mae", {}, "describe mage and maskgit, not mae"),
    ],
)
def test_a_plan_that_cannot_be_made_says_why(recipe: str, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training_cost(named(recipe), 1000, "h100", **keywords)
    with pytest.raises(ValueError, match="no published peaks of 'abacus'; a plan takes --device cpu, v100"):
        scaling.training_cost(named("smoke"), 1000, "abacus")
