"""Options of `mage serve`."""

from dataclasses import dataclass
from typing import Annotated

from mage.cli.options.base import Common
from mage.cli.options.bounds import Port
from mage.cli.options.places import MODEL, ImageFolder


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Show models in a browser, until Ctrl-C; with the same functions by REST (docs/serve.md). Needs the extra web.

    Nobody else can reach the page unless --host or --share says so; it loads nothing from elsewhere.
    """

    model: tuple[Annotated[str, MODEL], ...] = ()
    """models to choose from: packaged names, model or run folders; default: all packaged models"""
    folder: ImageFolder | None = None
    """folder of images for the map, for neighbours and to try edits on; default: a packaged model's examples"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 lets other machines in"""
    port: Port = 7860
    """port to listen on"""
    share: bool = False
    """also at a public address, through a server of Gradio's: everyone who has the address can use the page"""
