"""One network for all questions about Crafter: MAGE on sequences of four moments, any part of which may be unknown.

`frames.py`, `actions.py` and `plans.py` ask it; whichever runs first explores, trains, and keeps both under --out.
Three sequences of four are masked by whole frames and actions, as in the questions; the others by single tokens.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from crafter_tokens import ACTIONS, FIRST_ACTION, GRID, NUMBER, WORDS, Sequence, explored
from made_of import made_of

import mage
from mage import runs
from mage.data.own_tokens import write_tokens
from mage.data.token_cache import TokenCache
from mage.recipes import named
from mage.settings import override

FIRST_HELD_OUT = 5000
"""Worlds from this seed on are in no training."""


@dataclass(frozen=True)
class Options:
    """How much is explored and trained."""

    out: Path = Path("runs/crafter")
    steps: int = 2000
    worlds: int = 24
    world_steps: int = 500
    held_out: int = 4


def options(description: str) -> Options:
    """Options of the three examples."""
    parser = argparse.ArgumentParser(description=description)
    defaults = Options()
    parser.add_argument("--out", type=Path, default=defaults.out, help="folder of tokens and model")
    for name, help_text in (("steps", "training steps"), ("worlds", "worlds to explore for training")):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name), help=help_text)
    return Options(**vars(parser.parse_args()))


def mirrored(tokens: np.ndarray, axis: str) -> np.ndarray:
    """Sequences (n, *GRID) as a mirror shows them, "x" or "y": the same game, with actions and pictures turned."""
    one, other = {"x": ("left", "right"), "y": ("up", "down")}[axis]
    swap = np.arange(len(WORDS))
    for prefix in ("player-", "arrow-", "move_"):
        swap[[NUMBER[prefix + one], NUMBER[prefix + other]]] = NUMBER[prefix + other], NUMBER[prefix + one]
    turned = swap[tokens]
    cells = turned[..., 1:, :]
    turned[..., 1:, :] = cells[..., ::-1] if axis == "x" else cells[..., ::-1, :]
    return turned


def held_out(settings: Options, *, every: int, keep_games: bool = False) -> list[Sequence]:
    """Sequences of worlds that training has not seen."""
    seeds = range(FIRST_HELD_OUT, FIRST_HELD_OUT + settings.held_out)
    return [
        sequence
        for seed in seeds
        for sequence in explored(seed, settings.world_steps, every=every, keep_games=keep_games)
    ]


def training_tokens(settings: Options) -> TokenCache:
    """The explorer's sequences, each with its three mirror images as further views.

    Raises ValueError if there are those of other worlds.
    """
    folder = settings.out / "train"
    made_of(settings.out, {"worlds": settings.worlds, "world_steps": settings.world_steps}, begun=folder.exists())
    if not folder.exists():
        sequences = [
            sequence.tokens for seed in range(settings.worlds) for sequence in explored(seed, settings.world_steps)
        ]
        seen = np.stack(sequences)
        left, above = mirrored(seen, "x"), mirrored(seen, "y")
        views = np.stack([seen, left, above, mirrored(left, "y")], axis=1)
        return write_tokens(folder, views, num_codes=len(WORDS), views=True, name="crafter")
    return TokenCache(folder)


def trained(settings: Options) -> mage.Mage:
    """The model; trained once, and resumed where a stop left it."""
    recipe = override(
        named("tokens"),
        [
            "name=crafter",
            "model.width=96",
            "model.depth=3",
            "model.heads=2",
            "model.decoder_width=96",
            "model.decoder_depth=3",
            "model.decoder_heads=2",
            "method.masking.distribution=uniform",
            "method.masking.low=0.05",
            "method.masking.high=0.8",
            "method.masking.spans=[1,55]",
            "method.masking.span_share=0.75",
            "pretraining.batch_size=32",
            "pretraining.base_learning_rate=0.08",
            "pretraining.weight_decay=0.01",
            "pretraining.ema_decay=0.98",
            f"pretraining.steps={settings.steps}",
            f"run.observe_every={settings.steps}",
        ],
    )
    launch = runs.Launch(settings.out).inside("run")
    runs.pretrain(recipe, launch, cache=training_tokens(settings))
    return mage.load(launch.out)


def filled(model: mage.Mage, start: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Sequences with their unknown tokens (-1) filled in: in every step the surest ones, with the likeliest word."""
    return model.generate_tokens(
        len(start), start=start, steps=steps, token_temperature=0.0, choice_temperature=0.0, encoder_keep=1.0
    ).cpu()


def actions_of(tokens: torch.Tensor) -> torch.Tensor:
    """The actions between the moments, (n, MOMENTS - 1); the one before the first is of no interest."""
    return tokens[:, 1:, 0, 0]


def names(actions: torch.Tensor) -> list[str]:
    """Names of the actions of one sequence; a word that is none counts as noop."""
    return [ACTIONS[word - FIRST_ACTION] if word >= FIRST_ACTION else "noop" for word in actions.tolist()]


def tensor(sequences: list[Sequence]) -> torch.Tensor:
    """Tokens of sequences: (n, *GRID)."""
    return torch.from_numpy(np.stack([sequence.tokens for sequence in sequences])).view(-1, *GRID)
