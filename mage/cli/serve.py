"""`mage serve`: models in a browser."""

import sys
import threading

from mage.cli.console import emit, note
from mage.cli.options.serve import Options
from mage.web.server import Server, check_port, require_gradio
from mage.web.state import Models


def run(options: Options) -> None:
    """Load the models, start the page, and wait for Ctrl-C or SIGTERM."""
    require_gradio()
    note(options, "loading models ...")
    models = Models(options.model, folder=options.folder, device=options.device, precision=options.precision)
    server = None
    try:
        check_port(options.host, options.port)
        models.warm()
        server = Server(models, host=options.host, port=options.port, share=options.share)
        if options.share and server.public is None:
            note(options, "warning: there is no public address, for the reason above; the page is open on this machine")
        shared = f", and for everyone at {server.public}" if server.public else ""
        result = {"url": server.url, "public": server.public, "models": models.names}
        emit(options, result, f"{server.url}{shared}: {', '.join(models.names)}; Ctrl-C stops")
        sys.stdout.flush()  # a pipe would keep the address until the end
        threading.Event().wait()
    finally:
        if server is None:
            models.close()
        else:
            server.close()
