"""How many graphs the objectives of the token methods compile to over several steps, as JSON; run outside of pytest,
because shapes that are checked at run time cannot be compiled."""

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mage import rng
from mage.masking import Mask, MaskRatioConfig, random_mask
from mage.models import MAGEConfig, MAGETransformer
from mage.models.contrastive import ContrastiveConfig
from mage.training.contrastive import ContrastiveObjective, pair_mask
from mage.training.pretrain import PretrainObjective
from mage.vocabulary import Vocabulary

CODES, GRID, STEPS = 50, (4, 4), 4
IDS, CLASSES = torch.arange(4 * 16).view(4, 16) % CODES, torch.tensor([0, 1, -1, 2])


def build(classes: int = 0, **sizes: Any) -> MAGETransformer:
    """A small network."""
    sizes = {
        "decoder_width": 32,
        "decoder_depth": 1,
        "decoder_heads": 2,
        "dropout": 0.0,
        "num_classes": classes,
    } | sizes
    config = MAGEConfig(32, 2, 2, **sizes)
    words = classes if config.class_input == "encoder" else 0
    return MAGETransformer(config, Vocabulary.fresh(CODES, words), GRID)


def drawn(step: int, **settings: Any) -> Mask:
    """The mask of a step."""
    mask = random_mask(MaskRatioConfig(**settings), 4, 16, rng.generator(0, "mask", step))
    return mask.to(torch.device("cpu"))


def pairs(step: int) -> tuple[Tensor, Mask, Tensor]:
    """Two views and the images that are contrasted."""
    mask = pair_mask(MaskRatioConfig(), 4, 16, rng.generator(0, step), range(4), share_ratio=False).mask
    return torch.cat([IDS, IDS.flip(0)]), mask.to(torch.device("cpu")), torch.tensor([True, True, step % 2 == 0, True])


def graphs(objective: nn.Module, inputs: Callable[[int], tuple[Any, ...]]) -> dict[str, float]:
    """Graphs of some steps, and the largest relative deviation from the plain losses."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(objective, fullgraph=True, dynamic=False, backend="aot_eager")
    deviations = []
    for step in range(STEPS):
        losses, plain = (_losses(module(*inputs(step))) for module in (compiled, objective))
        losses.sum().backward()
        deviations.append(float(((losses - plain) / plain).abs().max()))
    return {"graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"], "deviation": max(deviations)}


def _losses(output: Any) -> Tensor:
    return output[None] if isinstance(output, Tensor) else torch.stack([output.reconstruction, output.contrastive])


def main() -> None:
    """Count and print."""
    cosine = {"distribution": "cosine", "low": 0.01, "drop": False, "per_image": True}
    found = {
        "mage": graphs(PretrainObjective(build()), lambda step: (IDS, drawn(step))),
        "class words": graphs(PretrainObjective(build(3)), lambda step: (IDS, drawn(step), CLASSES)),
        "class vectors": graphs(
            PretrainObjective(build(3, class_input="decoder")), lambda step: (IDS, drawn(step), CLASSES)
        ),
        "maskgit": graphs(PretrainObjective(build(decoder_depth=0)), lambda step: (IDS, drawn(step, **cosine))),
        "mage-c": graphs(ContrastiveObjective(build(), ContrastiveConfig()), pairs),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
