"""What a visitor may ask for, and how a refusal is told: in one sentence, never by a traceback."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from mage import images
from mage.array_files import regular_size


@dataclass(frozen=True)
class Limits:
    """Upper ends of what one call, and all calls together, may cost."""

    upload_megabytes: int = 10
    """Size of an uploaded file."""
    uploads_megabytes: int = 1000
    """Size of all files that are uploaded in two hours; they are deleted after one or two."""
    pixels: int = 25_000_000
    """Pixels of an uploaded picture."""
    waiting: int = 16
    """Calls that may wait for their turn; one is computed at a time."""
    seconds: float = 120.0
    """Time of one call, checked after every step."""
    count: int = 16
    """Images made by one call."""
    steps: int = 100
    """Steps of the sampler."""
    seed: int = 2**31 - 1
    """Largest seed."""
    mapped: int = 500
    """Images on a map, spread over a larger folder."""


LIMITS = Limits()


class TooLong(Exception):
    """A call has used up its time."""


def whole(value: Any, low: int, high: int, name: str) -> int:
    """The value as an integer in a range. Raises ValueError for anything else, from the page or from REST."""
    number = real(value, low, high, name)
    if number != int(number):
        raise ValueError(f"{name} must be a whole number, not {number}")
    return int(number)


def real(value: Any, low: float, high: float, name: str) -> float:
    """The value as a number in a range. Raises ValueError for anything else, NaN included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number from {low} to {high}")
    if not low <= value <= high:
        raise ValueError(f"{name} must lie from {low} to {high}, not {value}")
    return float(value)


def read_picture(path: str | Path | None, channels: int, limits: Limits = LIMITS) -> UInt8[Tensor, "c h w"]:
    """An uploaded picture. Raises ValueError, without the server's path, if it is missing, too large or no image."""
    if not path:
        raise ValueError("there is no picture: choose one of the examples, or upload your own")
    file = Path(path)
    check_file(file, limits)
    try:
        return images.load_image(file, channels, most_pixels=limits.pixels)
    except ValueError as error:
        raise ValueError(str(error).replace(str(file), file.name)) from None


def check_file(file: Path, limits: Limits) -> None:
    """Raise ValueError, without the server's path, for what is no file or too large a one."""
    try:
        size = regular_size(file)
    except ValueError as error:
        raise ValueError(str(error).replace(str(file), file.name)) from None
    if size > limits.upload_megabytes * 1_000_000:
        raise ValueError(f"{file.name} is larger than {limits.upload_megabytes} MB: save it smaller")


def refusal(error: Exception | str) -> Exception:
    """The error that a browser shows as one sentence."""
    import gradio

    sentence = " ".join(str(error).split())
    shown = sentence[:1].upper() + sentence[1:] + ("" if sentence.endswith(".") else ".")
    return gradio.Error(shown, title="That did not work", print_exception=False)


def kindly(function: Callable[..., Any], answer: Callable[[Any], Any] = lambda result: result) -> Callable[..., Any]:
    """The same function of the page, whose refusals the browser shows as one sentence.

    answer: what becomes of each result.
    """

    @wraps(function)
    def steps(*arguments: Any) -> Iterator[Any]:
        try:
            yield from map(answer, function(*arguments))
        except (ValueError, TooLong) as error:
            raise refusal(error) from None

    @wraps(function)
    def once(*arguments: Any) -> Any:
        try:
            return answer(function(*arguments))
        except (ValueError, TooLong) as error:
            raise refusal(error) from None

    return steps if inspect.isgeneratorfunction(function) else once
