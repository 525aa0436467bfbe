"""The sampler's settings as keywords of a method: one list that type checkers, `help()` and IDEs read.

`SamplingKeywords` types `**sampling`; `with_sampling_keywords` writes the same names into the signature that `help()`
shows, and what each means into the docstring.
"""

import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar

from mage.masking import Schedule
from mage.sampling import settings
from mage.sampling.settings import GuidanceSchedule, ReviseBy

Method = TypeVar("Method", bound=Callable[..., Any])


class SamplingKeywords(TypedDict, total=False):
    """Settings of SamplingConfig; None, and what is left out: the model's own."""

    steps: int | None
    choice_temperature: float | None
    token_temperature: float | None
    encoder_keep: float | None
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
    given = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    hints = SamplingKeywords.__annotations__
    settings_of_sampler = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in hints.items()
    ]
    method.__signature__ = signature.replace(parameters=[*given, *settings_of_sampler])  # type: ignore[attr-defined]
    lines = [f"    {name}: {text}" for name, text in _field_docs().items() if name in hints]
    own = inspect.cleandoc(method.__doc__ or "")
    method.__doc__ = "\n".join([own, "", "Settings of the sampler (None: the model's own):", *lines])
    return method


def _field_docs() -> dict[str, str]:
    """What the fields of SamplingConfig mean, from the strings below them: Python keeps those in the source only."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(settings.SamplingConfig)))
    except (OSError, TypeError):  # no source at hand, as in a frozen program: names are shown without words
        return dict.fromkeys(SamplingKeywords.__annotations__, "")
    body = tree.body[0].body  # type: ignore[attr-defined]
    docs = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            docs[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return docs
