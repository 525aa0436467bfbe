"""Write frames of the game Crafter as images: `python studies/crafter_frames.py --out DATA/crafter`.

Needs `pip install crafter`. 10,160 training images and 1,000 for testing, 64 x 64, in DATA/crafter/train and test: an
explorer walks through 112 worlds, and every fifth moment is kept, until the player dies. Test images are of worlds that
training images do not show. There are no classes.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

WORLDS = {"train": range(102), "test": range(1000, 1010)}
"""Seeds."""
FRAMES = 100
"""Of a world."""
EVERY = 5
"""Steps of the game from one frame to the next."""


def frames(seed: int, count: int) -> Iterator[np.ndarray]:
    """Views of an explorer in one world, (64, 64, 3) uint8; of fewer moments, if the player dies."""
    from crafter_tokens import CARE_EVERY, Explorer, Game

    game, explorer = Game(seed), Explorer(seed)
    for step in range(count * EVERY):
        if step % CARE_EVERY == 0:
            game.care()
        if step % EVERY == 0:
            yield game.render()
        if not game.act(explorer.action(game)):
            return


def main() -> None:
    """Play and write."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for train/ and test/")
    parser.add_argument("--frames", type=int, default=FRAMES, help="images of each world")
    options = parser.parse_args()
    for split, seeds in WORLDS.items():
        folder = options.out / split
        folder.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            for number, picture in enumerate(frames(seed, options.frames)):
                Image.fromarray(picture).save(folder / f"{seed:04d}-{number:03d}.png")
        print(split, len(list(folder.iterdir())), "images", flush=True)


if __name__ == "__main__":
    main()
