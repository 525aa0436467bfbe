"""Options of `mage completion`."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from mage.cli.options.base import Printing


@dataclass(frozen=True, kw_only=True)
class Options(Printing):
    """Print a script that completes commands and options in a shell."""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """the shell that reads the script; bash reads it from ~/.local/share/bash-completion/completions/mage, fish from
    ~/.config/fish/completions/mage.fish, zsh by a line in ~/.zshrc: source <(mage completion zsh)"""
