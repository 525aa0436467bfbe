"""The server of the page: only this machine unless told otherwise, nothing loaded from elsewhere, nothing reported."""

import importlib.util
import os
import socket
import sys
from contextlib import redirect_stdout
from importlib.resources import files
from typing import Any

from mage.web.guard import Guard, host_of
from mage.web.limits import Limits
from mage.web.page import build_page
from mage.web.state import Models

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "Arial", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ALLOWED_PATHS": "",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Variables that Gradio reads: it reports nothing, fetches nothing, and shows no file of this machine."""


def check_port(host: str, port: int) -> None:
    """Raise ValueError if nothing can listen there."""
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"cannot listen on {host}, port {port} ({error.strerror or error}): choose another --port or --host"
            ) from None


def require_gradio() -> None:
    """Raise ValueError if Gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError('mage serve needs Gradio: pip install "mage-vision[web]"')


class Server:
    """A running page."""

    def __init__(self, models: Models, *, host: str, port: int, share: bool = False) -> None:
        """Start it in the background. share: also at a public address of Gradio's, which is printed nowhere else."""
        os.environ.update(QUIET, GRADIO_TEMP_DIR=str(models.uploads))
        import gradio as gr

        theme = gr.themes.Default(font=FONTS, font_mono=MONO, primary_hue="indigo", neutral_hue="slate").set(
            body_text_color_subdued="*neutral_600",  # the theme's own are too pale to be read by everyone
            body_text_color_subdued_dark="*neutral_300",
            block_info_text_color="*neutral_600",
            block_info_text_color_dark="*neutral_300",
            button_primary_background_fill="*primary_600",
            button_primary_background_fill_hover="*primary_700",
        )
        self._models, self._blocks, names = models, build_page(models), set[str | None]()
        with redirect_stdout(sys.stderr):  # Gradio prints there whether it could get a public address
            _, self.url, self.public = self._blocks.launch(
                server_name=f"[{host}]" if ":" in host and not host.startswith("[") else host,
                server_port=port,
                share=share,
                prevent_thread_lock=True,
                quiet=True,
                theme=theme,
                css=files("mage.web").joinpath("style.css").read_text(encoding="utf-8"),
                footer_links=["api"],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                allowed_paths=[],
                max_file_size=f"{models.limits.upload_megabytes}mb",
                app_kwargs={"middleware": [_middleware(models.limits, names)]},
            )
        names.add(host_of(self.public or ""))
        self._blocks.share = False  # else its page loads scripts from a content network instead of this server

    def close(self) -> None:
        """Stop it, and delete what visitors left."""
        self._blocks.close(verbose=False)
        self._models.close()


def _middleware(limits: Limits, names: set[str | None]) -> Any:
    from starlette.middleware import Middleware

    return Middleware(Guard, limits=limits, names=names)
