"""All studies on CIFAR-10 in one go: `python studies/everything.py --data-root DATA [--scale gpu] [--only generation]`.

Trains a tokenizer and a model unless OUT has them, then runs representations.py, mage_c.py and generation.py, each with
settings for the scale:

cpu   two cores with bfloat16: two and a half hours for generation, as long for the representations
gpu   one large GPU: batches of 512 and 256, a wider model for generation; about 40 minutes in all
trial tiny models and few samples, to test that everything runs: give it a few hundred images, and --results

Finished steps are skipped and interrupted ones resumed; records are written as soon as there are results. Steps run in
sequence, because on one GPU parallel steps are no faster. Each study chooses by validation images and measures the
chosen settings on test images, as described in its own docstring.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from choices import RESULTS, ask

HERE = Path(__file__).resolve().parent
STUDIES = ("generation", "representations", "mage_c")


def sets(**changes: object) -> list[str]:
    """Settings as arguments of a command; a double underscore stands for a dot."""
    return [word for name, value in changes.items() for word in ("--set", f"{name.replace('__', '.')}={value}")]


@dataclass(frozen=True)
class Scale:
    """Arguments of all steps for one scale."""

    tokenizer: list[str]
    base: list[str]
    """Of the model for generation."""
    generation: list[str]
    """Of the study of generation, which continues this model."""
    representations: list[str]
    mage_c: list[str]


_WIDE = sets(
    model__width=384, model__heads=6, model__decoder_width=256, model__decoder_depth=3, model__decoder_heads=4,
    pretraining__batch_size=512, pretraining__base_learning_rate=1.5e-3,
)  # fmt: skip
_TINY = sets(model__width=32, model__depth=1, model__heads=2, pretraining__batch_size=8, data__online_images=0)
SCALES = {
    "cpu": Scale(
        tokenizer=sets(tokenizer_training__steps=3500),
        base=[],
        generation=[*sets(pretraining__steps=600), "--parts", "labels", "clusters", "samplers", "guidance",
                    "self_conditional", "edits", "--epochs", "8"],
        representations=["--minutes", "10", "--finetune-set", "optim.epochs=2"],
        mage_c=[],
    ),
    "gpu": Scale(
        tokenizer=["--workers", "2", *sets(
            tokenizer_training__batch_size=256, tokenizer_training__steps=2200,
            tokenizer_training__base_learning_rate=5e-3, tokenizer_loss__adversarial__base_learning_rate=3e-4,
        )],
        base=[*_WIDE, *sets(pretraining__steps=3500)],
        generation=[*_WIDE, *sets(pretraining__steps=1200), "--set-classes", "pretraining.steps=3500"],
        representations=[
            "--minutes", "2", "--workers", "4",
            *sets(pretraining__batch_size=512, pretraining__base_learning_rate=2e-3),
            "--finetune-set", "optim.epochs=10", "optim.batch_size=512", "optim.base_learning_rate=1e-3",
        ],
        mage_c=["--steps", "300", *sets(pretraining__batch_size=512, pretraining__base_learning_rate=1e-3)],
    ),
    "trial": Scale(
        tokenizer=sets(tokenizer__width=16, tokenizer_training__batch_size=8, tokenizer_training__steps=8),
        base=[*_TINY, *sets(pretraining__steps=4)],
        generation=[*_TINY, *sets(pretraining__steps=4), "--samples", "20", "--large", "30", "--epochs", "1",
                    "--clusters", "4", "--whole", "4"],
        representations=["--minutes", "0.001", *_TINY, "--corruption-images", "5", "--attack-images", "5",
                         "--finetune-set", "optim.epochs=1"],
        mage_c=["--steps", "4", "--samples", "20", "--only", "control", "published", "weight_0.3", *_TINY],
    ),
}  # fmt: skip


class Runner:
    """Runs commands; finished trainings are marked by a file."""

    def __init__(self, out: Path, data_root: str) -> None:
        self.out, self.data = out, ["--data-root", data_root]

    def train(self, command: str, name: str, *arguments: object) -> Path:
        """Run a training of this library in OUT/name, or resume it."""
        folder = self.out / name
        if not (folder / "finished").exists():
            resume = ["--resume"] if any(folder.glob("checkpoints/*.pt")) else []
            self.call("-m", "mage", command, "--out", folder, *self.data, *arguments, *resume)
            (folder / "finished").touch()
        return folder

    def call(self, *arguments: object) -> None:
        """Print and run a Python command."""
        print("python", *arguments, flush=True)
        subprocess.run([sys.executable, *map(str, arguments)], check=True)


def main() -> None:
    """Run the chosen studies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder where CIFAR-10 lies")
    parser.add_argument("--out", type=Path, default=Path("runs/studies"), help="folder of all runs")
    parser.add_argument(
        "--scale", choices=SCALES, default="cpu", help="settings for two cores, for a GPU, or for a trial"
    )
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES), help="studies to run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    options = parser.parse_args()
    ask(options.out, {"scale": options.scale})
    results = ("--results", options.results)
    scale, runner = SCALES[options.scale], Runner(options.out, options.data_root)
    tokenizer = runner.train("train-tokenizer", "tokenizer", "--recipe", "cifar10", *scale.tokenizer)
    if "generation" in options.only:
        tokens = options.out / "generation" / "tokens"
        recipe = ("--recipe", "cifar10", "--tokenizer", tokenizer)
        runner.call("-m", "mage", "tokenize", *recipe, "--out", tokens, *runner.data)
        base = runner.train("pretrain", "base", *recipe, "--data", tokens, *scale.base)
        words = ("--model", base, "--out", tokens.parent, *results)
        runner.call(HERE / "generation.py", *runner.data, *words, *scale.generation)
    runs = options.out / "representations"
    if {"representations", "mage_c"} & set(options.only):
        more = [] if "representations" in options.only else ["--only", "mage", "--train-only"]
        words = ("--tokenizer", tokenizer, "--out", runs, *results)
        runner.call(HERE / "representations.py", *runner.data, *words, *scale.representations, *more)
    if "mage_c" in options.only:
        inputs = ("--model", runs / "mage", "--tokens", runs / "tokens", "--out", options.out / "mage_c", *results)
        runner.call(HERE / "mage_c.py", *runner.data, *inputs, *scale.mage_c)


if __name__ == "__main__":
    main()
