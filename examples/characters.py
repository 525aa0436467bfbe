"""MAGE on characters of text: a sequence is a grid of one dimension. `python examples/characters.py [FILE.txt ...]`

The paper names language as future work. Sequences of 64 characters are the tokens, without any images. Without files it
reads the source code of Python's standard library, and learns in minutes on two CPU cores to close brackets, to indent
and to spell. Filling a gap works best, because both sides of it are known.
"""

import sys
import sysconfig
from pathlib import Path

import numpy as np
import torch

import mage
from mage import runs
from mage.data.own_tokens import write_tokens
from mage.recipes import named
from mage.settings import override

LENGTH = 64
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))


def sequences(text: str) -> np.ndarray:
    """Text -> (n, LENGTH) numbers of characters; foreign characters become question marks."""
    number = {character: index for index, character in enumerate(ALPHABET)}
    ids = np.array([number.get(character, number["?"]) for character in text], dtype=np.int64)
    return ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH)


def text_of(ids: torch.Tensor) -> str:
    """Numbers -> text; line breaks are shown, -1 is a gap."""
    return "".join("_" if index < 0 else ALPHABET[index] for index in ids.flatten().tolist()).replace("\n", "\u23ce")


def main(files: list[str], out: Path, steps: int = 1500) -> None:
    """Cache tokens, train, fill gaps, generate new lines."""
    paths = [Path(file) for file in files] or sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    ids = sequences("".join(path.read_text(errors="replace") for path in paths))
    order = np.random.default_rng(0).permutation(len(ids))
    held = max(1, len(ids) // 20)
    train, test = (
        write_tokens(out / name, ids[chosen], num_codes=len(ALPHABET))
        for name, chosen in (("train", order[held:]), ("test", order[:held]))
    )
    recipe = override(
        named("tokens"),
        [
            "name=characters",
            "model.width=192",
            "model.heads=6",
            "method.masking.low=0.3",
            "method.masking.mode=0.5",
            f"pretraining.steps={steps}",
            f"run.observe_every={steps}",
        ],
    )
    runs.pretrain(recipe, runs.Launch(out / "run"), cache=train, validation=test)
    model = mage.load(out / "run")
    rows = np.arange(min(8, len(test)))
    known = test.tokens(rows, np.zeros_like(rows))
    start = known.clone()
    start[:, LENGTH // 2 : LENGTH // 2 + 8] = -1
    filled = model.generate_tokens(len(rows), start=start, steps=8, token_temperature=0.0)
    for row in rows.tolist():
        print(f"given   {text_of(start[row])}\nfilled  {text_of(filled[row])}\n")
    print("\n".join(text_of(row) for row in model.generate_tokens(8, steps=32, token_temperature=0.7)))


if __name__ == "__main__":
    main(sys.argv[1:], Path("runs/characters"))
