"""What a pre-training costs on many devices, on paper: memory, network and time (docs/scaling.md derives the formulas).

Letters: P weights, n devices, L positions of a sequence, d width, b bytes of a number in a matrix product.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import torch

from mage.masking import MaskRatioConfig
from mage.models import MAGEConfig, MAGETransformer
from mage.nn.grids import area
from mage.recipes.schema import Recipe
from mage.runs.budget import MEAN_RATIO, training_flops
from mage.runs.hardware import BLOCK_SECONDS, CPU_SHARE, HARDWARE, MEASURED_SHARE, Hardware
from mage.tokenizers import VQGAN
from mage.training.optim import OptimConfig, build_optimizer
from mage.vocabulary import Vocabulary

Strategy = Literal["ddp", "fsdp"]
METHODS = ("mage", "maskgit")
"""Methods whose step is the one that the formulas describe."""
FLOAT = 4
"""Bytes of a weight: weights, gradients, optimizer and average are kept in float32."""
BACKWARD = 2 / 3
"""Share of a pass's time that the backward part takes, during which DDP exchanges gradients."""


@dataclass(frozen=True)
class Kernels:
    """What the kernels of a device keep for the backward pass."""

    number: int
    """Bytes of a number in a matrix product: 2 in bfloat16, 4 in float32."""
    fused: bool
    """Whether attention is one kernel, which keeps no probabilities."""
    mask: int
    """Bytes of one entry of a dropout mask."""

    @classmethod
    def of(cls, device: Hardware, precision: str) -> "Kernels":
        """The kernels that training uses on a device."""
        number = device.bytes_per_number(precision)
        return cls(number, fused=False, mask=number) if device.name == "cpu" else cls(number, fused=True, mask=1)


@dataclass(frozen=True)
class Cost:
    """Cost of a pre-training on `devices` devices; bytes are those of one device."""

    devices: int
    images: int
    """Images of one device in one pass."""
    weight_bytes: float
    gradient_bytes: float
    optimizer_bytes: float
    average_bytes: float
    activation_bytes: float
    network_bytes: float
    """Bytes that one device sends in a step."""
    compute_seconds: float
    share: float
    """Of the device's peak, that a step reaches while it computes."""
    network_seconds: float
    """Of a step, if nothing else happened meanwhile."""
    step_seconds: float
    """Of a step that exchanges while it computes."""
    steps: int

    @property
    def memory_bytes(self) -> float:
        """All of it; allocator, temporary tensors and the driver come on top."""
        state = self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.average_bytes
        return state + self.activation_bytes

    @property
    def seconds(self) -> float:
        """Of the whole training."""
        return self.steps * self.step_seconds

    @property
    def device_days(self) -> float:
        """Of all devices together."""
        return self.seconds * self.devices / 86_400

    def as_dict(self) -> dict[str, float]:
        """All numbers by name."""
        derived = {name: getattr(self, name) for name in ("memory_bytes", "seconds", "device_days")}
        return {**asdict(self), **derived}


def training_cost(
    recipe: Recipe,
    num_images: int,
    hardware: str,
    *,
    devices: int = 1,
    strategy: Strategy = "ddp",
    precision: str = "auto",
    share: float | None = None,
) -> Cost:
    """Cost of a recipe's pre-training on cached tokens.

    share: of the device's peak that a step reaches; default: the measured one, and no step faster than its launches.
    Raises ValueError for an unknown device, a method that the formulas do not describe, and a batch that the devices
    cannot share.
    """
    device, optim = hardware_named(hardware), recipe.pretraining
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"a step reaches a share of the peak above 0 and at most 1, not {share}: --share 0.4")
    if recipe.tokenizer is None or recipe.method.name not in METHODS:
        raise ValueError(
            f"the formulas describe {' and '.join(METHODS)}, not {recipe.method.name}: leave --devices out, and give a "
            "--device of this machine, to have steps timed on it"
        )
    if optim.batch_size % (devices * optim.accumulation):
        raise ValueError(
            f"a batch of {optim.batch_size:,} cannot be shared by {devices} devices in {optim.accumulation} parts: "
            "give a number of devices that divides it, or --set pretraining.batch_size=..."
        )
    images = optim.batch_size // (devices * optim.accumulation)
    tokens, kernels = area(recipe.tokenizer.grid), Kernels.of(device, precision)
    with torch.device("meta"):
        words = VQGAN(recipe.tokenizer).num_codes
        network = MAGETransformer(recipe.model, Vocabulary.fresh(words), recipe.tokenizer.grid)
    weights = FLOAT * sum(weight.numel() for weight in network.parameters())
    unit = FLOAT * max(sum(weight.numel() for weight in block.parameters()) for block in network.encoder.blocks)
    shared = devices if strategy == "fsdp" else 1
    scored = 1.0 if kernels.fused else MEAN_RATIO  # on a GPU all positions are scored, so that a step has one shape
    drop = getattr(recipe.method, "masking", MaskRatioConfig()).drop_ratio
    flops = training_flops(recipe.model, tokens, words, drop, scored) * images * optim.accumulation
    rate = share or (CPU_SHARE if device.name == "cpu" else MEASURED_SHARE)
    compute = flops / (1e12 * rate * device.tflops(precision))
    if share is None and device.name != "cpu":
        compute = max(compute, optim.accumulation * BLOCK_SECONDS * (recipe.model.depth + recipe.model.decoder_depth))
    sent = network_bytes(weights, devices, strategy, optim.accumulation)
    exchange = sent / (1e9 * device.bandwidth(devices))
    meanwhile = compute if strategy == "fsdp" else BACKWARD * compute / optim.accumulation
    return Cost(
        devices=devices,
        images=images,
        weight_bytes=weights / shared + (2 * unit if shared > 1 else 0),  # one block computes, the next one is gathered
        gradient_bytes=weights / shared * (2 if devices > shared else 1),  # DDP copies them into buckets
        optimizer_bytes=optimizer_bytes(network, optim) / shared,
        average_bytes=weights / shared if optim.ema_decay else 0.0,
        activation_bytes=images * activation_bytes(recipe.model, tokens, words, drop, scored, kernels)
        + (weights / 2 if kernels.number == 2 else 0),  # autocast keeps weights in bfloat16 until the backward pass
        network_bytes=sent,
        compute_seconds=compute,
        share=flops / (1e12 * device.tflops(precision) * compute),
        network_seconds=exchange,
        step_seconds=compute + max(0.0, exchange - meanwhile),
        steps=optim.num_steps(num_images),
    )


def hardware_named(name: str) -> Hardware:
    """A device of the table. Raises ValueError for any other."""
    if name not in HARDWARE:
        raise ValueError(f"there are no published peaks of {name!r}; a plan takes --device {', '.join(HARDWARE)}")
    return HARDWARE[name]


def optimizer_bytes(network: torch.nn.Module, optim: OptimConfig) -> float:
    """Two moments per weight for AdamW; for Muon one for the matrices."""
    numbers = 0
    for group in build_optimizer(network, optim).param_groups:
        moments = 1 if "parts" in group else 2  # only Muon's groups of matrices have parts
        numbers += moments * sum(weight.numel() for weight in group["params"])
    return float(FLOAT * numbers)


def network_bytes(weights: float, devices: int, strategy: Strategy, parts: int = 1) -> float:
    """Bytes that a device sends in a step of so many accumulated parts, in rings.

    ddp: reduce-scatter and all-gather of the gradients, with the last part. fsdp: all-gather of the weights in both
    passes of each part, reduce-scatter of the gradients.
    """
    rounds = 2 if strategy == "ddp" else 2 * parts + 1
    return rounds * (devices - 1) / devices * weights


def activation_bytes(
    config: MAGEConfig, tokens: int, num_codes: int, drop_ratio: float, scored: float, kernels: Kernels
) -> float:
    """Bytes that one image's forward pass keeps for the backward pass."""
    kept, whole, number = 1 + tokens - -int(-drop_ratio * tokens // 1), 1 + tokens, kernels.number
    masks = kernels.mask if config.dropout else 0
    width, decoder = config.width, config.decoder_width
    total: float = kept * width * (FLOAT + masks)  # embedding: input of its norm, and dropout
    total += config.depth * block_bytes(width, config.heads, config, kept, kernels)
    total += kept * width * FLOAT  # encoder's norm
    if config.decoder_depth:
        total += kept * width * number  # input of the linear map to the decoder
        total += config.decoder_depth * block_bytes(decoder, config.decoder_heads, config, whole, kernels)
        total += whole * decoder * FLOAT  # decoder's norm
    head = decoder if config.decoder_depth else width
    total += scored * tokens * (head * number + width * (3 * number) + num_codes * FLOAT)
    return total


def block_bytes(width: int, heads: int, config: MAGEConfig, length: int, kernels: Kernels) -> float:
    """Bytes that a transformer block keeps for one sequence.

    Inputs of both norms in float32; inputs of the four linear layers, queries, keys, values, and the input of GELU in
    the precision of products; three dropout masks. Attention written out also keeps probabilities, and these once more
    after dropout, with its mask.
    """
    masks = kernels.mask if config.dropout else 0
    hidden = config.mlp_ratio
    per_position = width * (2 * FLOAT + kernels.number * (6 + 2 * hidden) + masks * (2 + hidden))
    if kernels.fused:
        return length * (per_position + heads * FLOAT)
    probabilities = heads * length * (kernels.number * (2 if config.dropout else 1) + masks)
    return length * (per_position + probabilities)
