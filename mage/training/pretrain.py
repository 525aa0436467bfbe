"""Pre-training of MAGE: cross-entropy of the masked tokens (paper, section 3.2)."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mage import images, rng
from mage.data.batches import Batches
from mage.device import autocast
from mage.evaluation.masked_loss import MaskedTokens, masked_loss
from mage.masking import Mask, MaskRatioConfig, step_mask
from mage.models import MAGEConfig, MAGETransformer
from mage.nn.grids import area
from mage.sampling.generator import fill, unknown_grids
from mage.sampling.settings import SamplingConfig
from mage.share import Turn
from mage.store import folder as store
from mage.store.parts import ModelParts
from mage.tokenizers import Tokenizer
from mage.training.conditions import ConditionConfig, drop_classes
from mage.training.method import METHODS, MethodConfig, MethodInputs
from mage.training.optim import OptimConfig
from mage.training.task import Loss, Observation, Task, Watch
from mage.vocabulary import Vocabulary


class PretrainObjective(nn.Module):
    """The network with its loss, as one module, so that DDP wraps a single forward pass."""

    def __init__(self, network: MAGETransformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor, mask: Mask, classes: Tensor | None = None) -> Tensor:
        """Loss of a batch of token grids."""
        return self.network.loss(self.network(tokens, mask, classes), tokens, mask)


class Pretraining(Task):
    """The task: one network, one optimizer."""

    one_graph = True

    def __init__(
        self,
        network: MAGETransformer,
        tokenizer: Tokenizer | None,
        source: Batches,
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
        """source: of batches, with "labels" (n,) if conditions are trained.

        validation: held-out token grids (n, *grid).
        notes: stored in the model. precision: of tokenizing, if batches hold images.
        watch: called at every observation with the averaged network.
        """
        super().__init__("mage", PretrainObjective(network), source, optim, num_images=num_images)
        length = area(network.grid)
        if masking.drop and math.ceil(masking.drop_ratio * length) >= length:
            raise ValueError(
                f"method.masking.low={masking.low} drops all {length} tokens before the encoder: it must see some"
            )
        self.network = network
        self._tokenizer, self._masking = tokenizer, masking
        self._sampling, self._recipe, self._seed, self._validation = sampling, recipe, seed, validation
        self._notes, self._precision, self._watch = notes or {}, precision, watch
        self._conditions = conditions
        self.frozen = (network.encoder,) if conditions.freeze_encoder else ()

    def losses(self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], turn: Turn) -> Iterator[Loss]:
        """Masked cross-entropy, so that its mean over pieces is the mean over the masked tokens of the step's batch.

        Without a cache, images are tokenized first.
        """
        tokens = batch["tokens"] if "tokens" in batch else self.encode(batch["images"])
        random = rng.generator(self._seed, "mask", turn.step)
        drawn = step_mask(self._masking, turn.share.batch_size, tokens[0].numel(), random, turn.rows)
        classes = None
        if self.network.config.num_classes:
            classes = drop_classes(batch["labels"], self._conditions.drop, self._seed, turn)
        loss = modules["mage"](tokens.flatten(1), drawn.mask.to(tokens.device), classes)
        yield Loss("mage", drawn.weight * loss)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Tokenize a batch of images (uint8)."""
        assert self._tokenizer is not None
        with autocast(self._precision, pixels.device):
            return self._tokenizer.encode(images.to_float(pixels))

    def observe(self, modules: Mapping[str, nn.Module]) -> Observation:
        """Validation loss without classes, the watch's metrics, 64 samples ordered by class.

        Masks of validation are drawn as in training, and always the same ones.
        """
        network = modules["mage"].network
        assert isinstance(network, MAGETransformer)
        metrics = {} if self._watch is None else self._watch(network)
        device = network.head.bias.device
        if self._validation is not None:
            metrics["valid/loss"] = masked_loss(MaskedTokens(network, self._validation, self._seed, self._masking))
        if self._tokenizer is None:
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
        """Write tokenizer and averaged network as a model folder; a sampler that was tuned for it meanwhile is kept."""
        network = modules["mage"].network
        assert isinstance(network, MAGETransformer)
        recipe, notes = self._recipe, self._notes
        if tuned := store.tuned_sampler(folder):
            recipe = recipe | {"sampling": tuned["sampling"]}
            notes = notes | {"sampling_tuned": tuned["sampling_tuned"]}
        store.write(ModelParts(self._tokenizer, network, recipe, notes), folder)


@METHODS.register("mage")
@dataclass(frozen=True)
class MAGEMethod(MethodConfig):
    """MAGE: masked tokens are predicted, at a mask ratio that varies."""

    name: str = "mage"
    """Name of the method."""
    masking: MaskRatioConfig = field(default_factory=MaskRatioConfig)
    """Masking in training."""
    conditions: ConditionConfig = field(default_factory=ConditionConfig)
    """Class conditions."""

    @property
    def class_conditions(self) -> ConditionConfig:
        """Class conditions of the network."""
        return self.conditions

    def check(self, model: MAGEConfig) -> None:
        """Raise ValueError if the method cannot train a network of these sizes."""
        check_dropping(self.masking, model)
        conditioned = self.conditions.source != "none"
        if conditioned and self.conditions.freeze_encoder and model.class_input == "encoder":
            raise ValueError(
                "method.conditions.freeze_encoder needs model.class_input=decoder: a frozen encoder learns no classes"
            )

    def build(self, inputs: MethodInputs) -> Task:
        """The task of a run."""
        return Pretraining(new_network(inputs), inputs.tokenizer, inputs.source, **task_settings(self, inputs))


@METHODS.register("maskgit")
@dataclass(frozen=True)
class MaskGITMethod(MAGEMethod):
    """MaskGIT: one transformer that sees every position, cosine mask ratio (Chang et al. 2022)."""

    name: str = "maskgit"
    """Name of the method."""
    masking: MaskRatioConfig = field(
        default_factory=lambda: MaskRatioConfig(distribution="cosine", low=0.01, high=1.0, drop=False, per_image=True)
    )
    """Masking in training."""

    def check(self, model: MAGEConfig) -> None:
        """Raise ValueError if the method cannot train a network of these sizes."""
        if model.decoder_depth:
            raise ValueError(f"maskgit has no decoder: model.decoder_depth must be 0, not {model.decoder_depth}")
        super().check(model)


def check_dropping(masking: MaskRatioConfig, model: MAGEConfig) -> None:
    """Raise ValueError if tokens would be dropped before an encoder that has no decoder."""
    if masking.drop and not model.decoder_depth:
        raise ValueError(
            "model.decoder_depth=0 needs method.masking.drop=false: without a decoder the encoder sees every token"
        )


def new_network(inputs: MethodInputs) -> MAGETransformer:
    """A network with random weights, for the run's tokens and classes."""
    count = len(inputs.class_names)
    words = Vocabulary.fresh(inputs.num_codes, count if inputs.model.class_input == "encoder" else 0)
    with inputs.random_weights("mage"):
        return MAGETransformer(replace(inputs.model, num_classes=count), words, inputs.grid)


def task_settings(method: "MAGEMethod | Any", inputs: MethodInputs) -> dict[str, Any]:
    """Keywords of Pretraining that follow from a run and a method with `masking`."""
    return dict(
        num_images=inputs.num_images,
        optim=inputs.optim,
        masking=method.masking,
        sampling=inputs.sampling,
        recipe=inputs.recipe,
        seed=inputs.seed,
        validation=inputs.validation,
        notes=inputs.notes,
        precision=inputs.precision,
        watch=inputs.watch,
        conditions=method.class_conditions,
    )
