"""What the examples of tokens without images reach: `python studies/examples.py --recordings FOLDER`.

Text, speech, and frames, actions and plans of a game, each measured by its own example against chance and simple
baselines; examples/speech.py says where the recordings come from. Trained models under --out are not trained again.
Writes results/examples.json.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from choices import RESULTS

from mage.runs.record import Record, write_record

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PROTOCOL = {
    "text": "bits per character of 2,048 held-out sequences of 64 characters of Python's standard library; MAGE: chain "
    "rule in random order, 32 passes; order_0 and order_2: n-grams of the training text with Witten-Bell weights; "
    "bits_given_others: no code length, one character in 8 is unknown and the others around it are known",
    "audio": "gaps of a quarter of a second in recordings that training has not heard; accuracy and bits of tokens, "
    "root mean square error of the level in decibels",
    "frames": "share of correct cells of the next view, 4 worlds that training has not seen; accuracy_over_copy is the "
    "difference to a copy of the view before; rule: a step leads to the next cell if it is free",
    "actions": "share of correct actions between four moments, same worlds; accuracy_over_* are differences",
    "plans": "share of plans of 3 actions that end where the goal was seen, at least 2 steps away; random_moves: "
    "of the four directions; straight: walks to where the player is seen, first sideways",
}


def measured(recordings: Path, out: Path, steps: int | None) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics and seconds of every example; steps: of training, for all; None: each example's own."""
    sys.path.insert(0, str(EXAMPLES))
    import actions
    import characters
    import crafter_model
    import frames
    import plans
    import speech

    settings = crafter_model.Options(out=out / "crafter")
    if steps is not None:
        settings = crafter_model.Options(out=out / "crafter", steps=steps, worlds=1, world_steps=40, held_out=1)
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "frames": lambda: frames.measure(settings),
        "actions": lambda: actions.measure(settings),
        "plans": lambda: plans.measure(settings),
        "text": lambda: characters.measure([], out / "characters", steps or characters.STEPS),
        "audio": lambda: speech.measure(recordings, out / "speech", steps or speech.STEPS),
    }
    metrics: dict[str, float] = {}
    seconds = {}
    for name, part in parts.items():
        start = time.perf_counter()
        metrics |= part()
        seconds[name] = time.perf_counter() - start
    return metrics, seconds


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path, required=True, help="folder of .wav files for examples/speech.py")
    parser.add_argument("--out", type=Path, default=Path("runs/examples"), help="folder of tokens and models")
    parser.add_argument("--steps", type=int, help="training steps of all examples; default: their own")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    metrics, seconds = measured(options.recordings, options.out, options.steps)
    command = "python studies/examples.py --recordings FOLDER" + (f" --steps {options.steps}" if options.steps else "")
    write_record(options.results / "examples.json", Record(command, 0, PROTOCOL, seconds, metrics))


if __name__ == "__main__":
    main()
