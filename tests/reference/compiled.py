"""Largest differences between a compiled and a plain network, as JSON: shapes checked at run time cannot be compiled,
so that this runs outside of pytest."""

import copy
import json

import torch
from torch import Tensor

from mage.masking import mask_from_noise
from mage.models import MAGEConfig, MAGETransformer
from mage.vocabulary import Vocabulary


def largest(first: Tensor, second: Tensor) -> float:
    """Largest difference."""
    return float((first - second).detach().abs().max())


def main() -> None:
    """Compare and print."""
    torch.manual_seed(0)
    sizes = MAGEConfig(32, 2, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    plain = MAGETransformer(sizes, Vocabulary.fresh(32), (4, 4)).eval()
    compiled = torch.compile(copy.deepcopy(plain), backend="aot_eager")
    ids, noise = torch.randint(0, 32, (3, 4, 4)), torch.rand(3, 16)
    differences = {}
    for drop in (0.5, 0.0):
        mask = mask_from_noise(noise, 0.75, drop_ratio=drop)
        ours, theirs = plain(ids, mask), compiled(ids, mask)
        differences[f"latent, {drop} dropped"] = largest(theirs.latent, ours.latent)
        differences[f"logits, {drop} dropped"] = largest(theirs.logits, ours.logits)
        plain.loss(ours, ids, mask).backward()
        compiled.loss(theirs, ids, mask).backward()
    gradients = {name: weight.grad for name, weight in plain.named_parameters()}
    for name, weight in compiled.named_parameters():
        differences[f"gradient of {name}"] = largest(weight.grad, gradients[name.removeprefix("_orig_mod.")])
    describe = torch.compile(plain.features, backend="aot_eager")
    differences["features"] = largest(describe(ids), plain.features(ids))
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0, "nothing was compiled"
    print(json.dumps(differences))


if __name__ == "__main__":
    main()
