"""Options of `mage push`."""

from dataclasses import dataclass

from mage.cli.options.base import Common
from mage.cli.options.places import Model


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Upload a model to the Hugging Face Hub, with a card."""

    model: Model
    """model or run folder, or the name of a packaged model"""
    to: str
    """user/name of the model on the Hub; it is made if it is missing"""
    private: bool = False
    """make a new model private; default: as your account's settings say"""
    revision: str | None = None
    """branch to write to, made if it is missing; default: main"""
    message: str | None = None
    """what is new, in a line"""
    license: str | None = None
    """licence of the weights, such as mit; default: the card does not say"""
    title: str = ""
    """what the model makes, in a line, for its card"""
