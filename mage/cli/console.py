"""Printing of results and progress, and checks of output paths before any work."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tqdm import tqdm

from mage import distributed
from mage.cli.options.base import Printing


def emit(options: Printing, result: dict[str, Any], sentence: str) -> None:
    """Print a command's result, once for all processes: JSON for machines, a sentence for people."""
    if distributed.rank() == 0:
        print(json.dumps(result) if options.json else sentence)


def skipped_sentence(skipped: Sequence[str]) -> str:
    """Number of files that could not be read, with the first names; "" if there are none."""
    if not skipped:
        return ""
    more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return f"; {len(skipped)} unreadable files skipped: {', '.join(skipped[:3])}{more}"


def note(options: Printing, sentence: str) -> None:
    """Print a progress message to standard error; silent with --json."""
    if not options.json and distributed.rank() == 0:
        print(sentence, file=sys.stderr)


@contextmanager
def counting(total: int, unit: str, options: Printing) -> Iterator[Any]:
    """A progress bar; yields a function that takes the number of items done since the last call."""
    with tqdm(total=total, unit=unit, disable=True if options.json else None) as bar:
        yield bar.update


@contextmanager
def counting_images(options: Printing) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """A progress bar of images whose number is found in the block.

    Yields two functions: the first takes that number, the second the number of images done since its last call.
    """
    with ExitStack() as stack:
        bars: list[Callable[[int], None]] = []
        yield (
            lambda total: bars.append(stack.enter_context(counting(total, "image", options))),
            lambda done: bars[0](done),
        )
