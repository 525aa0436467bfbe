"""MAGE on characters of text: a sequence is a grid of one dimension. `python examples/characters.py [FILE.txt ...]`

The paper names language as future work. Sequences of 64 characters are the tokens, without any images. Without files it
reads the source code of Python's standard library, and learns in minutes to close brackets, to indent and to spell.
Filling a gap works best, because both sides of it are known. Held-out text is measured in bits per character, by the
chain rule in random order (`mage/sampling/code_length.py`), beside n-grams of characters from the same text.
"""

import argparse
import math
import sysconfig
from pathlib import Path

import numpy as np
import torch
from ngrams import Ngrams

import mage
from mage import runs
from mage.data.own_tokens import write_tokens
from mage.data.token_cache import TokenCache
from mage.recipes import named
from mage.settings import override

LENGTH = 64
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
STEPS = 1500
"""Training steps unless the user says otherwise."""
MEASURED = 2048
"""Held-out sequences that are measured."""


def sequences(text: str) -> np.ndarray:
    """Text -> (n, LENGTH) numbers of characters; foreign characters become question marks."""
    number = {character: index for index, character in enumerate(ALPHABET)}
    ids = np.array([number.get(character, number["?"]) for character in text], dtype=np.int64)
    return ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH)


def text_of(ids: torch.Tensor) -> str:
    """Numbers -> text; line breaks are shown, -1 is a gap."""
    return "".join("_" if index < 0 else ALPHABET[index] for index in ids.flatten().tolist()).replace("\n", "\u23ce")


def divided(files: list[str], out: Path) -> tuple[TokenCache, TokenCache]:
    """Token caches of training and of every twentieth file, which is held out; of a single file, its last part.

    Raises ValueError if there are caches of other files.
    """
    paths = [Path(file) for file in files] or sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [path.read_text(errors="replace") for path in paths]
    held = [text for index, text in enumerate(texts) if index % 20 == 19]
    kept = [text for index, text in enumerate(texts) if index % 20 != 19]
    if not held:
        cut = len(texts[-1]) * 9 // 10
        held, kept = [texts[-1][cut:]], [*texts[:-1], texts[-1][:cut]]
    train, test = (
        write_tokens(out / name, sequences("".join(part)), num_codes=len(ALPHABET))
        for name, part in (("train", kept), ("test", held))
    )
    return train, test


def trained(train: TokenCache, out: Path, steps: int) -> mage.Mage:
    """The model; trained once, and resumed where a stop left it. All numbers of unknown characters are as likely."""
    recipe = override(
        named("tokens"),
        [
            "name=characters",
            "model.width=128",
            "model.depth=3",
            "model.heads=4",
            "model.decoder_depth=4",
            "method.masking.distribution=uniform",
            "method.masking.low=0.1",
            "sampling.encoder_keep=0.9",
            "pretraining.base_learning_rate=0.03",
            "pretraining.weight_decay=0.01",
            "pretraining.ema_decay=0.99",
            f"pretraining.steps={steps}",
            f"run.observe_every={steps}",
        ],
    )
    launch = runs.Launch(out).inside("run")
    runs.pretrain(recipe, launch, cache=train)
    return mage.load(launch.out)


def all_of(cache: TokenCache, most: int | None = None) -> torch.Tensor:
    """Sequences of a cache, spread evenly over it if there are more than `most`: (n, LENGTH)."""
    count = len(cache) if most is None else min(most, len(cache))
    rows = np.linspace(0, len(cache) - 1, count).astype(int)
    return cache.tokens(rows, np.zeros_like(rows)).long()


def measure(files: list[str], out: Path, steps: int) -> dict[str, float]:
    """Cache tokens, train, and compare bits per character of held-out text."""
    train, test = divided(files, out)
    model, text = trained(train, out, steps), all_of(test, MEASURED)
    nats = model.code_length_of_tokens(text, passes=32)
    results = {"text.bits_per_character": float(nats.mean()) / LENGTH / math.log(2)}
    seen = all_of(train).numpy()
    for order in (0, 2):
        results[f"text.order_{order}"] = Ngrams(seen, len(ALPHABET), order).bits_per_token(text.numpy())
    # No code length, because characters around are known on both sides: what filling small gaps can build on.
    results["text.bits_given_others"] = float(model.surprise_of_tokens(text, parts=8).mean()) / math.log(2)
    results["text.chance"] = math.log2(len(ALPHABET))
    return results


def show(out: Path) -> None:
    """Fill gaps in held-out lines, and generate new ones."""
    model, known = mage.load(out / "run"), all_of(TokenCache(out / "test"), 8)
    start = known.clone()
    start[:, LENGTH // 2 : LENGTH // 2 + 8] = -1
    filled = model.generate_tokens(len(known), start=start, steps=8, token_temperature=0.0, choice_temperature=0.0)
    for given, result in zip(start, filled, strict=True):
        print(f"given   {text_of(given)}\nfilled  {text_of(result)}\n")
    print("\n".join(text_of(row) for row in model.generate_tokens(8, steps=32, token_temperature=0.7)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="text files; default: Python's standard library")
    parser.add_argument("--out", type=Path, default=Path("runs/characters"), help="folder of tokens and model")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    options = parser.parse_args()
    for metric, value in measure(options.files, options.out, options.steps).items():
        print(f"{metric:<28}{value:.3f}")
    show(options.out)
