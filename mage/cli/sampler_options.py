"""The sampler's settings as options, the same in every command that generates."""

from dataclasses import dataclass, fields
from typing import Annotated, Any

import tyro

from mage.cli.options import Common
from mage.masking import Schedule
from mage.pipeline import Mage
from mage.sampling.settings import GuidanceSchedule, ReviseBy, SamplingConfig


@dataclass(frozen=True, kw_only=True)
class SamplerOptions(Common):
    """Options of the commands that generate; what is left out is the model's own setting, else the paper's."""

    seed: int = 0
    """seed of everything random"""
    class_: Annotated[tuple[str, ...], tyro.conf.arg(name="class")] = ()
    """class by name or number, of a model with classes; several: in turn; all: every class in turn; default: as the
    model was trained to do without, a model of clusters draws each as often as it occurred"""
    steps: int | None = None
    """network passes per image; default: the model's own, else 20"""
    choice_temperature: float | None = None
    """more means more variety; default: the model's own, else 6"""
    token_temperature: float | None = None
    """0 takes the most probable code; default 1"""
    token_temperature_end: float | None = None
    """token temperature of the last step, reached linearly"""
    encoder_keep: float | None = None
    """share of the tokens that the encoder sees while more are unknown; 0.5, as in training, is faster; default 1"""
    order: str | None = None
    """which tokens become known first: confidence, halton, random; default confidence"""
    schedule: Schedule | None = None
    """how many stay unknown after each step; default cosine"""
    power: float | None = None
    """of the schedule power: 1 - progress^power stay unknown; default 2"""
    top_k: int | None = None
    """draw from the k most probable codes only; default 0: from all"""
    top_p: float | None = None
    """draw from the most probable codes that together have this probability; default 1"""
    revisions: int | None = None
    """rounds after the last step in which some tokens are forgotten and drawn again; default 0"""
    revise_share: float | None = None
    """share forgotten in the first round, falling; default 0.2"""
    revise_by: ReviseBy | None = None
    """critic: forget what the network finds least likely; random"""
    guidance: float | None = None
    """weight of classifier-free guidance towards the class; default 0: none"""
    guidance_schedule: GuidanceSchedule | None = None
    """constant; linear: growing with the steps; interval: in a part of them; default linear"""
    guidance_interval: tuple[float, float] | None = None
    """part of the steps, from 0 to 1, in which "interval" guides; default 0.3 1"""

    def sampling(self) -> dict[str, Any]:
        """What was given, as arguments of `generate`."""
        names = [field.name for field in fields(SamplingConfig)]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def classes(self, model: Mage) -> tuple[int | str, ...]:
        """The classes asked for, one after the other. Raises ValueError for `all` of a model without classes."""
        if self.class_ != ("all",):
            return self.class_
        count = getattr(getattr(model.transformer, "config", None), "num_classes", 0)
        if not count:
            raise ValueError("--class all: this model was trained without classes")
        return tuple(range(count))
