"""The same words in every command: --seed, --device, --precision, --json; and how commands print."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tqdm import tqdm

from mage import distributed
from mage.recipes import Choice
from mage.runs import Launch

Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options that every command has."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto is bf16 where the hardware is fast at it, else float32"""
    json: bool = False
    """print the result as one JSON object on standard output, nothing else"""


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(Common):
    """Options of the commands that follow a recipe."""

    recipe: str | None = None
    """name of a built-in recipe; default mnist5k"""
    config: Path | None = None
    """a recipe as YAML file, instead of --recipe"""
    set: Repeated = ()
    """override one setting, such as --set pretraining.steps=100; may be repeated"""
    data: str | None = None
    """data set by name, or a folder of images; default: the recipe's"""
    data_root: str | None = None
    """folder where a named data set's files are"""
    seed: int | None = None
    """seed of everything random; default: the recipe's"""

    def choice(self) -> Choice:
        """What is asked for, as `mage.recipes.resolve` takes it."""
        return Choice(self.recipe, self.config, self.set, self.data, self.seed)


@dataclass(frozen=True, kw_only=True)
class RunOptions(RecipeOptions):
    """Options of the commands that fill a run folder."""

    out: Path
    """run folder"""
    workers: int = 0
    """processes that read and augment images; 0: the main one"""

    def launch(self) -> Launch:
        """Everything about the run that does not change what is learned."""
        check_parent(self.out)
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, not {self.workers}")
        return Launch(
            self.out,
            device=self.device,
            precision=self.precision,
            resume=getattr(self, "resume", False),
            workers=self.workers,
            progress=not self.json,
            data_root=self.data_root,
        )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """Options of the commands that train: recipe.yaml, metrics.jsonl, checkpoints/, samples/, model/ in OUT."""

    resume: bool = False
    """go on with the run in --out; more steps than before make it longer"""


def emit(options: Common, result: dict[str, Any], sentence: str) -> None:
    """Print a command's result, once for all processes: JSON for machines, a sentence for people."""
    if distributed.rank() == 0:
        print(json.dumps(result) if options.json else sentence)


def skipped_sentence(skipped: Sequence[str]) -> str:
    """How many files could not be read, with the first names; "" if there were none."""
    if not skipped:
        return ""
    more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return f"; {len(skipped)} unreadable files skipped: {', '.join(skipped[:3])}{more}"


def note(options: Common, sentence: str) -> None:
    """Say something on the way; silent with --json."""
    if not options.json and distributed.rank() == 0:
        print(sentence, file=sys.stderr)


@contextmanager
def counting(total: int, unit: str, options: Common) -> Iterator[Any]:
    """A progress bar; yields the function that takes the number of things done since the last call."""
    with tqdm(total=total, unit=unit, disable=True if options.json else None) as bar:
        yield bar.update


def check_output_file(path: Path, suffixes: tuple[str, ...] = (".png",)) -> None:
    """Raise ValueError before any work if a result could not be written to `path`."""
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"--out {path} must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; give the name of a file")
    check_parent(path)


def check_parent(path: Path) -> None:
    """Raise ValueError if a file stands where a folder is needed."""
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise ValueError(f"cannot write {path}: {parent} is a file, not a folder")
