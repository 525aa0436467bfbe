"""The packaged digits behind the functions of the page, and, once for all browser tests, behind `mage serve` itself."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mage.web.state import Models

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
ONLY_LOOPBACK = """
import os, sys

def watch(event, arguments):
    host = None
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    if host not in (None, "127.0.0.1", "localhost", "::1", b"127.0.0.1", "0.0.0.0"):
        with open(os.environ["REACHED_OUT"], "a") as file:
            file.write(f"{event} {host}\\n")
        raise OSError(f"no network in tests: {host}")

sys.addaudithook(watch)
"""
"""A sitecustomize.py: the process can reach this machine only, and what else it tried is written down."""


@pytest.fixture(scope="session")
def models() -> Iterator[Models]:
    """The packaged digits."""
    loaded = Models(("digits",), device="cpu", precision="float32")
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def picture(models: Models) -> str:
    """An example of the digits as a file."""
    return models.keep(models["digits"].examples[5])


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """`mage serve --model digits` in a process that can reach nothing but this machine: its address, and its record."""
    pytest.importorskip("gradio", reason="mage serve needs the extra web")
    folder = tmp_path_factory.mktemp("served")
    (folder / "sitecustomize.py").write_text(ONLY_LOOPBACK)
    reached_out, errors = folder / "reached_out.txt", folder / "errors.txt"
    variables = os.environ | {
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "REACHED_OUT": str(reached_out),
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(folder),
        "GRADIO_SHARE": "True",  # these three must not be obeyed
        "GRADIO_ANALYTICS_ENABLED": "True",
        "GRADIO_ALLOWED_PATHS": "/",
    }
    variables.pop("HF_HUB_OFFLINE", None)  # the command itself must see to it
    words = ["serve", "--model", "digits", "--port", str(free_port()), "--json"]
    with errors.open("w") as standard_error:
        process = subprocess.Popen(
            [sys.executable, "-m", "mage", *words], env=variables, stdout=subprocess.PIPE, stderr=standard_error,
            text=True, cwd=folder,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in jobs of a shell's background
        )  # fmt: skip
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, errors.read_text()
            told = json.loads(line)
            assert told["public"] is None
            yield SimpleNamespace(url=told["url"], reached_out=reached_out, errors=errors, folder=folder)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=240) == 130, "Ctrl-C"
            assert errors.read_text().splitlines()[-1] == "mage serve: stopped"
            assert not list(folder.glob("mage-serve-*")), "what visitors left is deleted"
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
