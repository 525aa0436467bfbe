"""Every setting of the sampler, with the published values as defaults."""

import math
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from mage.masking import Schedule, masked_share
from mage.sampling.orders import ORDERS

GuidanceSchedule = Literal["constant", "linear", "interval"]
ReviseBy = Literal["critic", "random"]


class Drawing(TypedDict):
    """Arguments of `draw.draw_codes`."""

    temperature: float
    top_k: int
    top_p: float


@dataclass(frozen=True)
class SamplingConfig:
    """Settings of the sampler; the defaults are the published ones for ViT-B."""

    steps: int = 20
    """Network passes per image."""
    choice_temperature: float = 6.0
    """Weight of the noise on confidences, falling to 0 at the last step; larger gives more variety."""
    token_temperature: float = 1.0
    """Temperature of the softmax that codes are drawn from; 0 takes the most probable code."""
    encoder_keep: float = 1.0
    """Share of the tokens that the encoder sees while more are unknown: 0.5 is as in training, and faster."""
    reuse: int = 1
    """One pass in so many computes all positions, the others only those that changed or are to be drawn: faster, and
    slightly different; 1 is the paper's sampler."""
    order: str = "confidence"
    """Which tokens become known first: confidence is the paper's; halton spreads them evenly over the image; random."""
    schedule: Schedule = "cosine"
    """Schedule of the number of tokens still unknown after each step: cosine is the paper's; linear, arccos, power."""
    power: float = 2.0
    """Exponent of the schedule "power": a share of 1 - progress^power stays unknown."""
    token_temperature_end: float | None = None
    """Token temperature of the last step, reached linearly; none: the same in all steps."""
    top_k: int = 0
    """Draw from the k most probable codes only; 0: from all."""
    top_p: float = 1.0
    """Draw from the most probable codes that together have this probability."""
    revisions: int = 0
    """Rounds of revision after the last step: a share of the new tokens is masked and redrawn."""
    revise_share: float = 0.2
    """Share of the new tokens that the first round of revision redraws; it falls linearly."""
    revise_by: ReviseBy = "critic"
    """critic: redraw the tokens that the network itself finds least likely given the rest (two more passes); random."""
    guidance: float = 0.0
    """Weight w of classifier-free guidance, c + w (c - u) with scores c with and u without the class; 0: none."""
    guidance_schedule: GuidanceSchedule = "linear"
    """constant; linear: growing with the steps to w; interval: w inside `guidance_interval`, else 0."""
    guidance_interval: tuple[float, float] = (0.3, 1.0)
    """Part of the steps, from 0 to 1, in which "interval" guides."""

    def __post_init__(self) -> None:
        """Raises ValueError for a setting out of its range."""
        if self.steps < 1:
            raise ValueError(f"decoding needs at least 1 step, not {self.steps}")
        temperatures = (self.choice_temperature, self.token_temperature, self.token_temperature_end or 0.0)
        if not all(0 <= temperature < math.inf for temperature in temperatures):
            raise ValueError(f"temperatures must be 0 or more and finite, not {temperatures}")
        if self.reuse < 1:
            raise ValueError(f"reuse must be at least 1 (every pass computes all positions), not {self.reuse}")
        ORDERS.get(self.order)  # raises ValueError for an unknown order
        words = {"schedule": Schedule, "revise_by": ReviseBy, "guidance_schedule": GuidanceSchedule}
        for name, known in words.items():
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, not {getattr(self, name)!r}")
        if not 0 < self.encoder_keep <= 1:
            raise ValueError(f"encoder_keep must lie in (0, 1], not {self.encoder_keep}")
        if self.power <= 0:
            raise ValueError(f"the power of a schedule must be positive, not {self.power}")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"top_k must be 0 or more and top_p lie in (0, 1], not {self.top_k} and {self.top_p}")
        if self.revisions < 0 or not 0 < self.revise_share <= 1:
            raise ValueError(
                f"revisions must be 0 or more and revise_share lie in (0, 1], not {self.revisions} and "
                f"{self.revise_share}"
            )
        low, high = self.guidance_interval
        if not 0 <= self.guidance < math.inf or not 0 <= low < high <= 1:
            raise ValueError(
                f"guidance must be 0 or more and its interval lie in [0, 1], not {self.guidance} and {low}, {high}"
            )

    def token_temperature_at(self, progress: float) -> float:
        """Token temperature of the step that ends at `progress`, from above 0 to 1."""
        if self.token_temperature_end is None or self.steps == 1:
            return self.token_temperature
        done = max(0.0, (progress * self.steps - 1) / (self.steps - 1))  # (1 / 49) * 49 < 1
        return self.token_temperature + done * (self.token_temperature_end - self.token_temperature)

    def drawing_at(self, progress: float) -> Drawing:
        """Arguments of `draw_codes` for the step that ends at `progress`."""
        return Drawing(temperature=self.token_temperature_at(progress), top_k=self.top_k, top_p=self.top_p)

    def complete_at(self, progress: float) -> bool:
        """Whether the pass of the step that ends at `progress`, from above 0 to 1, computes all positions.

        The first does; the others are spread so that about as many tokens become known from one to the next.
        """
        step = round(progress * self.steps) - 1
        if self.reuse == 1 or step == 0:
            return True
        passes = math.ceil(self.steps / self.reuse)
        before, now = (
            math.floor(passes * (1 - masked_share(done / self.steps, self.schedule, self.power)))
            for done in (step - 1, step)
        )
        return now > before

    def guidance_at(self, progress: float) -> float:
        """Weight of the guidance in the step that ends at `progress`, from above 0 to 1."""
        if self.guidance_schedule == "linear":
            return self.guidance * progress
        low, high = self.guidance_interval
        inside = self.guidance_schedule == "constant" or low <= progress <= high
        return self.guidance if inside else 0.0
