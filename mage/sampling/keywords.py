"""The sampler's settings as keywords of a method: one list that type checkers, `help()` and IDEs read.

`SamplingKeywords` types `**sampling`; `with_sampling_keywords` writes the same names into the signature that `help()`
shows, and the meaning of each into the docstring.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar

from mage.masking import Schedule
from mage.sampling.settings import GuidanceSchedule, ReviseBy, SamplingConfig
from mage.settings import field_docs

Method = TypeVar("Method", bound=Callable[..., Any])


class SamplingKeywords(TypedDict, total=False):
    """Settings of SamplingConfig; a setting that is None or left out is the model's own."""

    steps: int | None
    choice_temperature: float | None
    token_temperature: float | None
    encoder_keep: float | None
    reuse: int | None
    order: str | None
    schedule: Schedule | None
    power: float | None
    token_temperature_end: float | None
    top_k: int | None
    top_p: float | None
    revisions: int | None
    revise_share: float | None
    revise_by: ReviseBy | None
    guidance: float | None
    guidance_schedule: GuidanceSchedule | None
    guidance_interval: tuple[float, float] | None


def with_sampling_keywords(method: Method) -> Method:
    """The same method, whose signature and docstring name every setting of the sampler in place of `**sampling`."""
    signature = inspect.signature(method)
    explicit = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    hints = SamplingKeywords.__annotations__
    settings_of_sampler = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in hints.items()
    ]
    method.__signature__ = signature.replace(parameters=[*explicit, *settings_of_sampler])  # type: ignore[attr-defined]
    descriptions = field_docs(SamplingConfig)  # empty in a frozen program, which has no source
    lines = [f"    {name}: {descriptions.get(name, '')}" for name in hints]
    own = inspect.cleandoc(method.__doc__ or "")
    method.__doc__ = "\n".join([own, "", "Settings of the sampler (None: the model's own):", *lines])
    return method
