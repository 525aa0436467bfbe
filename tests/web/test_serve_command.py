"""`mage serve` cleans up however it is ended."""

import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from mage.cli import serve
from mage.cli.main import main


def test_a_terminated_server_is_closed_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    closed: list[str] = []

    def server(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(url="http://here", public=None, close=lambda: closed.append("server"))

    def models(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(names=["digits"], warm=lambda: None, close=lambda: closed.append("models"))

    for name, stand_in in {"require_gradio": lambda: None, "check_port": lambda *_: None}.items():
        monkeypatch.setattr(serve, name, stand_in)
    monkeypatch.setattr(serve, "Server", server)
    monkeypatch.setattr(serve, "Models", models)
    before = signal.getsignal(signal.SIGTERM)
    killer = SimpleNamespace(wait=lambda: os.kill(os.getpid(), signal.SIGTERM) or threading.Event().wait(10))
    monkeypatch.setattr(serve, "threading", SimpleNamespace(Event=lambda: killer))
    with pytest.raises(SystemExit) as stop:
        main(["serve"])
    assert stop.value.code == 143
    assert closed == ["server"]
    assert signal.getsignal(signal.SIGTERM) is before
    assert "http://here" in capsys.readouterr().out
