"""Tokens that a trained network redraws, from which a decoder learns to make good images of generated tokens.

A tokenizer's decoder learns from the tokens of real images alone; those that a network draws do not fit together as
well. After training, the decoder alone is trained further on images of which the network has drawn a part anew, towards
the real images (RobusTok, arXiv 2509.12474, post-trains a decoder on generated tokens, too).

Letters: n images, h w tokens.
"""

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from mage import rng
from mage.masking import mask_from_noise
from mage.models.mage import MAGETransformer
from mage.sampling.decode import UNKNOWN
from mage.sampling.generator import fill
from mage.sampling.settings import SamplingConfig
from mage.share import Turn

STEPS = 4
"""Passes of the network for a batch: of a part of the tokens, few draw about as well as many."""


class Redraw:
    """Redraws a random share of each image's tokens, between nothing and the largest share."""

    def __init__(self, network: MAGETransformer, sampling: SamplingConfig, *, largest: float, seed: int) -> None:
        """network: of the same tokenizer; it is not trained. largest: share of the tokens, in (0, 1]."""
        self._network = network.eval()
        self._sampling = replace(sampling, steps=STEPS, guidance=0.0, revisions=0)
        self._largest, self._seed = largest, seed

    @torch.no_grad()
    def __call__(self, ids: Int[Tensor, "n h w"], turn: Turn) -> Int[Tensor, "n h w"]:
        """The grids after a part was drawn anew; depends on the seed, the step and an image's row in its batch."""
        network = self._network.to(ids.device)
        indices = [turn.step * turn.share.batch_size + row for row in turn.rows]
        random = [rng.generator(self._seed, "redraw", index) for index in indices]
        shares = self._largest * torch.cat([torch.rand(1, generator=generator) for generator in random])
        noise = rng.uniform_rows(random, ids[0].numel(), ids)
        start = ids.flatten(1).masked_fill(mask_from_noise(noise, shares, drop_ratio=0).masked, UNKNOWN)
        drawn = fill(
            network,
            start,
            indices=indices,
            seed=self._seed,
            stream="redrawn",
            settings=self._sampling,
            batch_size=len(start),
            classes=torch.full((len(start),), -1, device=ids.device) if network.config.num_classes else None,
        )
        return torch.cat(list(drawn)).view_as(ids)
