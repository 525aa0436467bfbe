"""A recipe fitted to a number of images and of minutes: codes, size of the network, batch, steps.

The recipes were tuned on thousands of images. For fewer, a codebook has words that hardly occur, a network learns the
images by heart, and thousands of steps repeat them thousands of times; for a given time, the steps follow from the pace
of the machine. The limits below are rules of thumb, not results of a search; each is only ever reached from above.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from mage.models import MAGEConfig
from mage.nn.grids import area
from mage.recipes.named import RECIPES
from mage.recipes.schema import Recipe
from mage.training.optim import OptimConfig
from mage.training.run import RunConfig

Training = Literal["tokenizer_training", "pretraining"]
TOKENS_PER_CODE = 100
"""A code occurs so often, on average, among the tokens of the training images."""
SEEN_PER_CODE = 3500
"""A code is met so often, on average, while its tokenizer is trained: in a short time, few codes are learned better."""
FEWEST_CODES = 64
PARAMETERS_PER_TOKEN = 50
"""Parameters of MAGE's blocks for each token of the training images."""
FEWEST_PARAMETERS = 1_000_000
"""Networks up to this size are not made smaller."""
FEWEST_BATCHES = 8
"""Batches in one pass over the images."""
SMALLEST_BATCH = 16
MOST_PASSES: dict[Training, int] = {"tokenizer_training": 400, "pretraining": 800}
"""Passes over the training images after which a training ends, though there be time left."""
MOST_PASSES_CONTINUED: dict[Training, int] = {"tokenizer_training": 100, "pretraining": 100}
"""The same of a training that starts from the weights of a trained model, which soon learns few images by heart."""
SHARE_OF_STEPS = 0.85
"""Share of the time for training steps; the rest is for reading images, validation, samples and checkpoints."""
FEWEST_STEPS = 200
"""A training of fewer steps is refused: the warm-ups of learning rate and codebook are hardly over."""
FEWEST_STEPS_CONTINUED = 50
"""The same from the weights of a trained model, whose loss falls from the first steps on."""
TIMES = {"log_every": 20, "observe_every": 4, "checkpoint_every": 4}
"""How often, at least, each comes in a training."""
ENOUGH_STEPS = 1000
"""A pre-training that must keep to a time gets fewer blocks, then smaller batches, until it has so many steps."""
SHALLOW = 4
"""A network of so few blocks takes twice the learning rate."""
NARROWEST = 32
"""Width down to which a tokenizer is halved for lack of time."""
ANY_NUMBER = ("vq", "ema", "normalized", "simvq")
"""Quantizers whose number of codes can be any."""


class TooFewMinutes(ValueError):
    """The time is for too few steps."""

    def __init__(self, sentence: str, needed: float) -> None:
        """sentence: of what there is. needed: minutes of the training, with all that is not steps."""
        super().__init__(sentence, needed)  # by which another process makes the same error
        self.sentence, self.needed = sentence, needed

    def __str__(self) -> str:
        return f"{self.sentence}: give at least {math.ceil(self.needed)}, or a smaller recipe or batch"


@dataclass(frozen=True)
class Fit:
    """A recipe fitted to images and minutes."""

    recipe: Recipe
    steps: int
    seconds: float
    """Estimated time of the training, with all that is not steps."""
    bound: Literal["minutes", "passes"]
    """What ends the training."""


def fit_sizes(recipe: Recipe, training: Training, num_images: int) -> Recipe:
    """Fewer codes (when the tokenizer is trained) or blocks (of MAGE), and a smaller batch, for few images."""
    optim = fit_batch(getattr(recipe, training), num_images)
    if training == "tokenizer_training":
        return replace(_fewer_codes(recipe, num_images, TOKENS_PER_CODE), tokenizer_training=optim)
    if recipe.tokenizer is not None and recipe.method.reads == "tokens":
        tokens = num_images * area(recipe.tokenizer.grid)
        return replace(recipe, model=fit_depth(recipe.model, tokens), pretraining=optim)
    return replace(recipe, pretraining=optim)


def _fewer_codes(recipe: Recipe, num_images: int, per_code: int) -> Recipe:
    """The recipe with codes that occur so often each in so many images, where its quantizer can have any number."""
    config = recipe.tokenizer
    if config is None or config.quantizer.kind not in ANY_NUMBER:
        return recipe
    codes = fit_codes(config.quantizer.num_codes, num_images * area(config.grid), per_code)
    return replace(recipe, tokenizer=replace(config, quantizer=replace(config.quantizer, num_codes=codes)))


def fit_codes(codes: int, tokens: int, per_code: int = TOKENS_PER_CODE) -> int:
    """At most `codes`: the largest power of two that occurs `per_code` times each, but at least FEWEST_CODES."""
    power = 1 << max(1, tokens // per_code).bit_length() - 1
    return min(codes, max(FEWEST_CODES, power))


def fit_depth(model: MAGEConfig, tokens: int) -> MAGEConfig:
    """The encoder's depth halved until the blocks have at most PARAMETERS_PER_TOKEN parameters for each token."""
    most = max(FEWEST_PARAMETERS, PARAMETERS_PER_TOKEN * tokens)
    while model.depth > 2 and block_parameters(model) > most:
        model = replace(model, depth=model.depth // 2)
    return model


def block_parameters(model: MAGEConfig) -> int:
    """Weights of the transformer blocks: attention and MLP of encoder and decoder, without norms and biases."""
    each = 4 + 2 * model.mlp_ratio
    return round(each * (model.depth * model.width**2 + model.decoder_depth * model.decoder_width**2))


def fit_batch(optim: OptimConfig, num_images: int) -> OptimConfig:
    """The batch halved until a pass has FEWEST_BATCHES, or it is SMALLEST_BATCH; never more than the images."""
    batch = optim.batch_size
    while batch > SMALLEST_BATCH and batch * FEWEST_BATCHES > num_images:
        batch = max(SMALLEST_BATCH, batch // 2)
    batch = min(batch, num_images)
    return replace(optim, batch_size=batch, accumulation=math.gcd(batch, optim.accumulation))


def fit_steps(
    recipe: Recipe,
    training: Training,
    num_images: int,
    *,
    seconds_per_step: float,
    minutes: float,
    share: float = 1.0,
    continued: bool = False,
) -> Fit:
    """As many steps as the minutes allow, but not more than MOST_PASSES over the images.

    share: of the minutes that is for this training. continued: from the weights of a trained model.

    Validation, checkpoints and log lines come at least a few times in a short training. Raises TooFewMinutes
    if the time is for less than FEWEST_STEPS.
    """
    optim: OptimConfig = getattr(recipe, training)
    affordable = int(minutes * share * 60 * SHARE_OF_STEPS / seconds_per_step)
    passes = (MOST_PASSES_CONTINUED if continued else MOST_PASSES)[training]
    fewest = FEWEST_STEPS_CONTINUED if continued else FEWEST_STEPS
    useful = max(fewest, math.ceil(passes * num_images / optim.batch_size))
    steps = min(affordable, useful)
    if steps < fewest:
        part = f", {share:.0%} of them for this training," if share < 1 else ""
        raise TooFewMinutes(
            f"{minutes:.3g} minutes{part} are {affordable} steps of {seconds_per_step:.2g} s by recipe {recipe.name}, "
            "too few to learn from",
            fewest * seconds_per_step / SHARE_OF_STEPS / 60 / share,
        )
    changed: dict[str, Any] = {training: replace(optim, steps=steps), "run": _run(recipe, steps)}
    fitted = replace(recipe, **changed)
    if training == "tokenizer_training" and not continued:
        fitted = _fewer_codes(fitted, steps * optim.batch_size, SEEN_PER_CODE)
    seconds = steps * seconds_per_step / SHARE_OF_STEPS
    return Fit(fitted, steps, seconds, "minutes" if affordable <= useful else "passes")


def smaller(recipe: Recipe, training: Training) -> Recipe | None:
    """A recipe of about half the time per step: fewer blocks, smaller batches or a narrower tokenizer; None at the end.

    For a training that must keep to a time on any machine: a small network that was trained is worth more than a large
    one that was not. The learning rate stays as it is when batches are halved. In the four minutes in which the digits'
    network of 8 blocks makes 257 steps, and hardly learns what a digit is, one of 2 blocks with twice the learning rate
    and half the batch makes 1,143, and draws digits.
    """
    optim: OptimConfig = getattr(recipe, training)
    faster = replace(optim, base_learning_rate=2 * optim.base_learning_rate)
    if training == "pretraining" and recipe.model.depth > 2:
        depth = recipe.model.depth // 2
        rate = faster if recipe.model.depth > SHALLOW >= depth else optim
        return replace(recipe, model=replace(recipe.model, depth=depth), pretraining=rate)
    if optim.batch_size >= 2 * SMALLEST_BATCH:
        batch = optim.batch_size // 2
        halved = replace(faster, batch_size=batch, accumulation=math.gcd(batch, optim.accumulation))
        changed: dict[str, Any] = {training: halved}
        return replace(recipe, **changed)
    if training == "tokenizer_training" and recipe.tokenizer is not None and recipe.tokenizer.width > NARROWEST:
        return replace(recipe, tokenizer=replace(recipe.tokenizer, width=recipe.tokenizer.width // 2))
    return None


def unfitted(recipe: Recipe) -> Recipe:
    """The recipe of an earlier training without the intervals that were fitted to its own steps."""
    usual = RECIPES[recipe.name]().run if recipe.name in RECIPES else RunConfig()
    earlier = [_intervals(optim.steps) for optim in (recipe.tokenizer_training, recipe.pretraining) if optim.steps]
    undone = {
        name: getattr(usual, name)
        for name in TIMES
        if getattr(recipe.run, name) in [intervals[name] for intervals in earlier]
    }
    return replace(recipe, run=replace(recipe.run, **undone))


def _run(recipe: Recipe, steps: int) -> RunConfig:
    """Intervals for so many steps: the recipe's, where those are not too long."""
    fitted = {name: min(getattr(recipe.run, name), most) for name, most in _intervals(steps).items()}
    return replace(recipe.run, **fitted)


def _intervals(steps: int) -> dict[str, int]:
    return {name: max(1, steps // times) for name, times in TIMES.items()}
