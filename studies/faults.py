"""What sudden ends cost: `python studies/faults.py` writes results/faults.json.

Commands are killed at random instants, also inside writes and between renames, and each is followed by the same command
(trainings that have a checkpoint: with --resume). Counted are files with a final name that cannot be read, right after
the kill or at the end; what is missing, doubled or different in comparison with a command that was not disturbed, to
the last bit of every field of every checkpoint; commands that were refused; and temporary files that stayed.
"""

import argparse
import contextlib
import functools
import importlib
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import kills
import numpy as np
import torch

import mage
from mage import images
from mage.checkpoints import official
from mage.data.own_tokens import write_tokens
from mage.data.token_cache import write_cache
from mage.recipes import named
from mage.runs.record import Record, write_record

ROOT = Path(__file__).resolve().parent.parent
RELEASED = ROOT / "tests" / "golden"
SMALL = 16
"""Images of a shard of a cache, and rows of a piece of a table, so that few images make several."""
OFTEN = ["--set", "run.checkpoint_every=2", "--set", "run.observe_every=3", "--set", "run.log_every=1"]
TRAINING = [
    *OFTEN,
    "--set",
    "data.validation.images=8",
    "--set",
    "tokenizer_training.steps=6",
    "--set",
    "pretraining.steps=6",
]
TUNING = [*OFTEN, "--set", "optim.steps=6", "--set", "optim.batch_size=8"]
COUNTS = ("lost", "duplicates", "unreadable", "different", "refused", "traces")


@dataclass(frozen=True)
class Scenario:
    """A command that is killed."""

    name: str
    out: str
    """What it writes: a folder or a file."""
    arguments: tuple[str, ...]
    """The command; ROOT/ stands for the folder with its inputs."""
    before: str = ""
    """A folder that is at `out` before the command."""
    times: int = 20
    """How often it is killed."""

    def command(self, root: Path) -> list[str]:
        """The whole command."""
        return [part.replace("ROOT/", f"{root}/") for part in self.arguments] + [
            "--out",
            str(self.place(root)),
            "--json",
        ]

    def place(self, root: Path) -> Path:
        """Its output, in a folder of its own."""
        return root / self.name.replace(" ", "-") / self.out

    def prepare(self, root: Path) -> None:
        """Make the folder as it is before the command."""
        kills.remove(self.place(root).parent)
        self.place(root).parent.mkdir(parents=True)
        if self.before:
            shutil.copytree(root / self.before, self.place(root))


GENERATE = ("generate", "--model", "ROOT/model", "--num", "12", "--batch-size", "4")
SCENARIOS = (
    Scenario(
        "train-tokenizer", "run",
        ("train-tokenizer", "--recipe", "smoke", "--data", "ROOT/images", *TRAINING),
        times=12,
    ),
    Scenario(
        "pretrain", "run",
        ("pretrain", "--recipe", "smoke", "--data", "ROOT/images", "--tokenizer", "ROOT/tokenizer", *TRAINING),
        times=12,
    ),
    Scenario(
        "finetune", "run",
        ("finetune", "--model", "ROOT/model", "--data", "ROOT/images", "--recipe", "small", *TUNING),
        times=12,
    ),
    Scenario(
        "tokenize", "cache",
        ("tokenize", "--recipe", "smoke", "--data", "ROOT/images", "--tokenizer", "ROOT/tokenizer", *TRAINING),
    ),
    Scenario("tokenize array", "cache", ("tokenize", "--array", "ROOT/array.npy")),
    Scenario("embed", "table.npz", ("embed", "ROOT/images", "--model", "ROOT/model", "--batch-size", "8")),
    Scenario("embed csv", "table.csv", ("embed", "ROOT/images", "--model", "ROOT/model", "--batch-size", "8")),
    Scenario("generate png", "images", GENERATE),
    Scenario("generate tar", "shards", (*GENERATE, "--to", "tar", "--shard-size", "4")),
    Scenario("convert", "model", ("convert", "ROOT/released.pth", "--config", "ROOT/config.json")),
    Scenario(
        "convert over a model", "model", ("convert", "ROOT/released.pth", "--config", "ROOT/config.json"), "old_model"
    ),
    Scenario("convert back", "released.pth", ("convert", "ROOT/converted")),
)  # fmt: skip


@dataclass
class Found:
    """What kills of one scenario cost."""

    killed: int = 0
    ended: int = 0
    """Commands that had ended before they were to be killed."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    problems: list[str] = field(default_factory=list)

    def add(self, kind: str, problems: Sequence[str], instant: kills.Instant) -> None:
        """Count problems of a kind."""
        self.counts[kind] += len(problems)
        self.problems += [f"{kind} after {instant}: {problem}" for problem in problems]


def make_inputs(root: Path) -> None:
    """Tiny images, models and a released checkpoint."""
    for number in range(40):
        pixels = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(number))
        images.save_png(root / "images" / "ab"[number % 2] / f"{number:02d}.png", pixels)
    recipe = named("smoke")
    model = mage.build(recipe.model, tokenizer=recipe.tokenizer, precision="float32")
    model.save(root / "model")
    mage.Mage(model.tokenizer, None).save(root / "tokenizer")
    np.save(root / "array.npy", np.arange(240).reshape(40, 6) % 50)
    shutil.copyfile(RELEASED / "official_checkpoint.pth", root / "released.pth")
    shutil.copyfile(RELEASED / "expected.json", root / "config.json")
    official.convert(
        root / "released.pth", root / "converted", config=json.loads((root / "config.json").read_text())["config"]
    )
    other = mage.build(recipe.model, tokenizer=recipe.tokenizer, precision="float32", seed=1)
    other.save(root / "old_model")


@contextlib.contextmanager
def small_pieces() -> Iterator[None]:
    """Context in which caches and tables have several parts, though there are few images."""
    with contextlib.ExitStack() as stack:
        for name, write in (("runs.tokens.write_cache", write_cache), ("cli.tokenize.write_tokens", write_tokens)):
            stack.enter_context(mock.patch(f"mage.{name}", functools.partial(write, shard_images=SMALL)))
        for name in ("rows.PIECE_ROWS", "rows.ROWS", "table_files.ROWS"):
            stack.enter_context(mock.patch(f"mage.runs.{name}", SMALL))
        yield


def measure(
    scenario: Scenario,
    root: Path,
    number: int,
    generator: random.Random,
    draw: Callable[..., kills.Instant] = kills.draw,
) -> Found:
    """Kill a scenario's command `number` times."""
    out, command, found = scenario.place(root), scenario.command(root), Found()
    scenario.prepare(root)
    whole = kills.run(command, None, root)
    if whole.code:
        raise SystemExit(f"{scenario.name} fails: {whole.text}")
    expected = kills.content(out)
    for _ in range(number):
        instant = draw(generator, whole)
        scenario.prepare(root)
        first = kills.run(command, instant, root)
        found.killed += first.code != 0
        found.ended += first.code == 0
        with _unreadable(found, instant):
            kills.content(out)
        resume = ["--resume"] if any(out.glob("checkpoints/step-*.pt")) else []
        second = kills.run([*command, *resume], None, root)
        if second.code:
            found.add("refused", [f"exit code {second.code}, {second.text[-500:]}"], instant)
            continue
        found.add("traces", kills.traces(out), instant)
        with _unreadable(found, instant):
            there = kills.content(out)
            found.add("lost", sorted(expected.keys() - there.keys()), instant)
            found.add("duplicates", [*sorted(there.keys() - expected.keys()), *kills.doubled(there)], instant)
            both = expected.keys() & there.keys()
            found.add("different", sorted(name for name in both if there[name] != expected[name]), instant)
    return found


@contextlib.contextmanager
def _unreadable(found: Found, instant: kills.Instant) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        found.add("unreadable", [str(error)], instant)


def main() -> None:
    """Kill, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, help="kills of each command; default: 12 of trainings, 20 of others")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="add to the counts in OUT, which are of other seeds")
    parser.add_argument("--only", nargs="+", help="names of commands; default: all")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "faults.json")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a forked process must not wait for threads of its parent
    for name in {scenario.arguments[0].replace("-", "_") for scenario in SCENARIOS}:
        importlib.import_module(f"mage.cli.{name}")  # once, and not in every forked process
    protocol = {
        "kills": "SIGKILL at a random instant: half of them after a random time, half at a random call that changes "
        "the disk (before it, after it, inside the write), each followed by the same "
        "command; ended: had ended before, not among the kills",
        "lost": "files that are missing in comparison with a command that was not disturbed",
        "duplicates": "files, lines of metrics.jsonl and images of shards that are too many",
        "unreadable": "files with a final name that cannot be read, right after the kill or at the end",
        "different": "files that differ from those of a command that was not disturbed: checkpoints in any bit of any "
        "field, logs but for their clocks, all others in any byte",
        "refused": "second commands that ended with an error",
        "traces": "temporary files and locks that stayed",
    }
    start, metrics = time.perf_counter(), dict[str, float]()
    if options.add:
        before = json.loads(options.out.read_text())
        metrics, start = before["metrics"], start - before["seconds"]
    with tempfile.TemporaryDirectory() as temporary, small_pieces():
        root = Path(temporary)
        make_inputs(root)
        for scenario in SCENARIOS:
            if options.only and scenario.name not in options.only:
                continue
            number = scenario.times if options.kills is None else options.kills
            found = measure(scenario, root, number, random.Random(f"{options.seed} {scenario.name}"))
            for name, value in {"kills": found.killed, "ended": found.ended, **found.counts}.items():
                key = f"{scenario.name.replace(' ', '_')}.{name}"
                metrics[key] = metrics.get(key, 0) + value
            print(scenario.name, found.killed, found.ended, found.counts, *found.problems, sep="\n  ", flush=True)
            timings = {"total": time.perf_counter() - start}
            total = {
                name: sum(metrics[key] for key in metrics if key.endswith(f".{name}")) for name in ("kills", *COUNTS)
            }
            record = Record("python studies/faults.py", options.seed, protocol, timings, metrics | total)
            write_record(options.out, record)  # after each command, because it takes long


if __name__ == "__main__":
    main()
