"""MAGE on clips: tokens on a grid of time, rows and columns. `python examples/clips.py`

A clip shows a square of one of four colours that moves in a straight line, with wrap-around; its tokens are the
colours, like the codes of a video tokenizer. Given the first half of held-out clips, the network generates the second
half: it must recognise the motion of a square and continue it. After a minute and a half on one core 71 % of the tokens
of squares are correct, against 14 % for repeating the last frame and 5 % by chance.
"""

from pathlib import Path

import numpy as np
import torch

import mage
from mage import runs
from mage.data.own_tokens import write_tokens
from mage.recipes import named
from mage.settings import override

FRAMES, SIDE, SQUARE, COLOURS = 4, 4, 2, 4
KNOWN = FRAMES // 2


def moving_squares() -> np.ndarray:
    """All 256 possible clips, shuffled: (n, FRAMES, SIDE, SIDE), 0 is the background, 1 to COLOURS a square."""
    clips = []
    for *place, colour in np.ndindex(SIDE, SIDE, COLOURS):
        for steps in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            clip = np.zeros((FRAMES, SIDE, SIDE), dtype=np.int64)
            for time in range(FRAMES):
                rows, columns = (
                    (start + time * step + np.arange(SQUARE)) % SIDE for start, step in zip(place, steps, strict=True)
                )
                clip[time][np.ix_(rows, columns)] = 1 + colour
            clips.append(clip)
    return np.random.default_rng(0).permutation(np.stack(clips))


def accuracy(drawn: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of correct tokens in unknown frames, where either clip shows a square: the background is easy."""
    drawn, truth = drawn[:, KNOWN:], truth[:, KNOWN:]
    return float((drawn == truth)[(drawn > 0) | (truth > 0)].float().mean())


def main(out: Path, steps: int = 1500) -> None:
    """Cache tokens, train, complete clips, compare with two baselines without a network."""
    clips = moving_squares()
    train = write_tokens(out / "train", clips[26:], num_codes=COLOURS + 1)
    test = write_tokens(out / "test", clips[:26], num_codes=COLOURS + 1)
    recipe = override(
        named("tokens"),
        [
            "name=clips",
            "model.width=64",
            "model.depth=3",
            "model.heads=4",
            "model.decoder_width=64",
            "method.masking.mode=0.7",
            "pretraining.weight_decay=0",
            "pretraining.base_learning_rate=0.08",
            "pretraining.ema_decay=0.97",
            "pretraining.batch_size=32",
            f"pretraining.steps={steps}",
            f"run.observe_every={steps}",
        ],
    )
    runs.pretrain(recipe, runs.Launch(out / "run", precision="float32"), cache=train, validation=test)
    truth = torch.from_numpy(clips[:26])
    start = truth.clone()
    start[:, KNOWN:] = -1
    drawn = mage.load(out / "run").generate_tokens(len(start), start=start, steps=8, token_temperature=0.0).cpu()
    still = torch.cat([truth[:, :KNOWN], truth[:, KNOWN - 1 : KNOWN].expand(-1, FRAMES - KNOWN, -1, -1)], dim=1)
    results = {"drawn": drawn, "last frame repeated": still, "another clip (chance)": truth.roll(1, 0)}
    for name, result in results.items():
        print(f"{name:<24}{accuracy(result, truth):.3f}")


if __name__ == "__main__":
    main(Path("runs/clips"))
