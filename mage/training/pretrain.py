"""Pre-training MAGE: masked tokens in, cross-entropy on what was masked out (paper, section 3.2; METHOD section 6)."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mage import images, rng
from mage.masking import Mask, MaskRatioConfig, random_mask
from mage.models import MAGE, Transformer
from mage.pipeline import Mage
from mage.precision import autocast
from mage.sampling.generator import fill, unknown_grids
from mage.sampling.settings import SamplingConfig
from mage.tokenizers import Tokenizer
from mage.training.conditions import ConditionConfig, hide_some
from mage.training.optim import OptimConfig
from mage.training.task import Loss, Observation

TokenBatches = Callable[[int, int, int], Iterator[dict[str, Tensor]]]
"""(number of the first batch, rank, world size) -> batches with "tokens" (n, h, w), or "images" uint8 to be encoded."""
Watch = Callable[[Any], dict[str, float]]
"""(network with `features`) -> numbers for the log: an online probe, wired in by the recipes."""


class PretrainObjective(nn.Module):
    """The network with its loss, as one module, so that wrappers for many processes see a single forward."""

    def __init__(self, network: MAGE) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor, mask: Mask, classes: Tensor | None = None) -> Tensor:
        """Loss of a batch of token grids."""
        return self.network.loss(self.network(tokens, mask, classes), tokens, mask)


class Pretraining:
    """The task: one network, one optimizer."""

    def __init__(
        self,
        network: MAGE,
        tokenizer: Tokenizer | None,
        source: TokenBatches,
        *,
        num_images: int,
        optim: OptimConfig,
        masking: MaskRatioConfig,
        sampling: SamplingConfig,
        recipe: dict[str, Any],
        seed: int,
        validation: Tensor | None = None,
        notes: dict[str, Any] | None = None,
        precision: str = "float32",
        watch: Watch | None = None,
        conditions: ConditionConfig = ConditionConfig(),  # noqa: B008  # frozen
    ) -> None:
        """source: where batches come from; with "labels" (n,) where conditions are trained.

        validation: token grids (n, h, w) that training does not see.
        notes: the tokenizer's, kept in the model. precision: in which images are tokenized, where batches hold images.
        watch: called at every observation with the averaged network.
        """
        self.network = network
        self.modules: dict[str, nn.Module] = {"mage": PretrainObjective(network)}
        self.optim = {"mage": optim}
        self.batch_size, self.steps = optim.batch_size, optim.num_steps(num_images)
        self._tokenizer, self._source, self._masking = tokenizer, source, masking
        self._sampling, self._recipe, self._seed, self._validation = sampling, recipe, seed, validation
        self._notes, self._precision, self._watch = notes or {}, precision, watch
        self._conditions = conditions
        self.frozen: tuple[nn.Module, ...] = (network.encoder,) if conditions.freeze_encoder else ()

    def batches(self, start: int, *, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """This process's batches from number `start` on."""
        return self._source(start, rank, world_size)

    def losses(
        self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], *, number: int, rank: int
    ) -> Iterator[Loss]:
        """Masked cross-entropy; images are tokenized first where no cache was given."""
        tokens = batch["tokens"] if "tokens" in batch else self.encode(batch["images"])
        length = tokens[0].numel()
        mask = random_mask(self._masking, len(tokens), length, rng.generator(self._seed, "mask", number, rank))
        classes = None
        if self.network.config.num_classes:
            classes = hide_some(batch["labels"], self._conditions.drop, self._seed, number, rank)
        yield Loss("mage", modules["mage"](tokens.flatten(1), mask.to(tokens.device), classes), {})

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Tokenize a batch of images (uint8)."""
        assert self._tokenizer is not None
        with autocast(self._precision, pixels.device):
            return self._tokenizer.encode(images.to_float(pixels))

    def observe(self, modules: Mapping[str, nn.Module], *, pictures: bool) -> Observation:
        """Validation loss without classes under fixed masks, what the watch finds, 64 samples class after class."""
        network = modules["mage"].network
        assert isinstance(network, MAGE)
        metrics = {} if self._watch is None else self._watch(network)
        device = network.head.bias.device
        if self._validation is not None:
            total = 0.0
            for index, part in enumerate(self._validation.split(256)):
                random = rng.generator(self._seed, "validation mask", index)
                config = MaskRatioConfig(per_image=True, drop=network.config.decoder_depth > 0)
                mask = random_mask(config, len(part), part[0].numel(), random).to(device)
                tokens = part.to(device).flatten(1)
                total += float(network.loss(network(tokens, mask), tokens, mask)) * len(part)
            metrics["valid/loss"] = total / len(self._validation)
        if not pictures or self._tokenizer is None:
            return Observation(metrics)
        classes = network.config.num_classes
        batches = fill(
            network,
            unknown_grids(network, 64, device),
            indices=range(64),
            seed=self._seed,
            stream="sample",
            settings=self._sampling,
            batch_size=64,
            classes=torch.arange(64, device=device) % classes if classes else None,
        )
        ids = torch.cat(list(batches)).view(64, *network.grid)
        return Observation(metrics, images.make_grid(self._tokenizer.decode(ids).cpu()))

    def export(self, modules: Mapping[str, nn.Module], folder: Path) -> None:
        """Write tokenizer and averaged network as a model folder."""
        network = modules["mage"].network
        assert isinstance(network, MAGE)
        write_model(self._tokenizer, network, self._recipe, self._notes, folder)

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Nothing is known to go wrong silently."""
        return []

    def state(self) -> dict[str, Any]:
        """Nothing beyond the network."""
        return {}


def write_model(
    tokenizer: Tokenizer | None,
    network: Transformer | None,
    recipe: dict[str, Any],
    notes: dict[str, Any],
    folder: Path,
) -> None:
    """Write a model folder without disturbing the networks, which may be in training."""
    from mage import atomic
    from mage.checkpoints import io

    model = Mage.__new__(Mage)
    model._tokenizer, model._transformer, model.recipe, model.notes = tokenizer, network, recipe, notes
    with atomic.replacing_folder(folder) as temporary:
        io.write_into(model, temporary)
