"""The server: its headers, its REST functions as docs/serve.md shows them, and what it refuses."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from mage.web.server import check_port, require_gradio
from tests.web.conftest import ROOT

DIGITS: list[Any] = ["digits", "7", 1.5, 2, 1.0, 0, 2]
FILE = {"_type": "gradio.FileData"}


def fetch(url: str, data: bytes | None = None, kind: str = "application/json") -> bytes:
    request = urllib.request.Request(url, data, {"Content-Type": kind} if data is not None else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def call(served: SimpleNamespace, function: str, *arguments: Any) -> tuple[list[str], Any]:
    """The events that a call answers with, and the data of the last."""
    url = f"{served.url}gradio_api/call/{function}"
    event = json.loads(fetch(url, json.dumps({"data": arguments}).encode()))["event_id"]
    lines = fetch(f"{url}/{event}").decode().splitlines()
    events = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    return events, json.loads([line for line in lines if line.startswith("data: ")][-1].removeprefix("data: "))


def upload(served: SimpleNamespace, name: str, content: bytes) -> dict[str, Any]:
    """An uploaded file as an argument of a call."""
    border = "b0rder"
    body = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body += content + f"\r\n--{border}--\r\n".encode()
    answer = fetch(f"{served.url}gradio_api/upload", body, f"multipart/form-data; boundary={border}")
    return {"path": json.loads(answer)[0], "meta": FILE}


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_browser_is_told_to_load_nothing_from_elsewhere(served: SimpleNamespace) -> None:
    with urllib.request.urlopen(served.url, timeout=60) as answer:
        headers, text = answer.headers, answer.read().decode()
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    loaded = re.findall(r"""<(?:script|link)[^>]+(?:src|href)=["'](https?://[^"']+)""", text)
    assert [url for url in loaded if not url.startswith(served.url)] == []


def test_images_are_generated_by_rest_step_by_step(served: SimpleNamespace) -> None:
    events, (images, order, text) = call(served, "generate", *DIGITS)
    assert events[-1] == "complete"
    assert "generating" in events
    assert "2 images of 49 tokens" in text
    with Image.open(io.BytesIO(fetch(images["url"]))) as picture:
        assert picture.format == "PNG"
    assert order["url"].startswith(served.url)


def test_an_uploaded_picture_is_edited_and_reconstructed_by_rest(served: SimpleNamespace) -> None:
    file = upload(served, "white.png", png(50, 40))
    events, (_, results, text) = call(
        served, "edit", "digits", file, None, "Inpaint the middle", "left", 0.5, "any", 2, 0
    )
    assert events[-1] == "complete"
    assert "25 of 49 tokens" in text
    assert fetch(results["url"])[:4] == b"\x89PNG"
    events, (*pictures, text) = call(served, "reconstruct", "digits", file, 0.5, 0)
    assert events[-1] == "complete"
    assert len(pictures) == 3


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("generate", ["digits", "7", 1.5, 2, 1.0, 2**40, 2], "seed|maximum"),
        ("generate", ["digits", "7", 99, 2, 1.0, 0, 2], "guidance|maximum"),
        ("generate", ["digits", "7", 1.5, 2, 1.0, 0, 10**9], "number of images|maximum"),
        ("generate", ["digits", "ship", 1.5, 2, 1.0, 0, 2], "ship"),
        ("generate", ["imagenet", "7", 1.5, 2, 1.0, 0, 2], "imagenet"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_rest_in_a_sentence(
    served: SimpleNamespace, function: str, arguments: list[Any], message: str
) -> None:
    events, problem = call(served, function, *arguments)
    assert events[-1] == "error"
    assert re.search(message, json.dumps(problem)), problem
    assert "Traceback" not in json.dumps(problem)


def test_a_file_that_is_no_image_is_refused_by_rest_without_the_servers_path(served: SimpleNamespace) -> None:
    events, problem = call(served, "reconstruct", "digits", upload(served, "notes.png", b"no image"), 0.5, 0)
    assert events[-1] == "error"
    assert "Cannot read notes.png as an image" in json.dumps(problem)
    assert str(served.folder) not in json.dumps(problem)


def test_a_file_of_the_server_is_neither_read_nor_shown(served: SimpleNamespace) -> None:
    secret = served.folder / "secret.png"
    secret.write_bytes(png(28, 28))
    events, _ = call(served, "reconstruct", "digits", {"path": str(secret), "meta": FILE}, 0.5, 0)
    assert events[-1] == "error"
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(f"{served.url}gradio_api/file={secret}")
    refused.value.close()
    assert refused.value.code in (403, 404)


def test_a_picture_of_another_address_is_refused_by_rest_in_a_sentence(served: SimpleNamespace) -> None:
    address = {"path": "https://example.com/cat.png", "url": "https://example.com/cat.png", "meta": FILE}
    for function, arguments in {
        "reconstruct": ["digits", address, 0.5, 0],
        "edit": ["digits", None, {"layers": [address]}, "Inpaint the middle", "left", 0.5, "any", 2, 0],
    }.items():
        events, problem = call(served, function, *arguments)
        assert events[-1] == "error"
        assert "fetches nothing from other addresses" in json.dumps(problem)
    assert not served.reached_out.exists()


def test_another_site_cannot_use_the_page(served: SimpleNamespace) -> None:
    for origin, answer in {"https://example.com": 403, served.url.rstrip("/"): 200}.items():
        request = urllib.request.Request(f"{served.url}config", headers={"Origin": origin})
        try:
            with urllib.request.urlopen(request, timeout=60) as page:
                status = page.status
        except urllib.error.HTTPError as refused:
            refused.close()
            status = refused.code
        assert status == answer


def test_the_page_listens_at_an_address_of_version_6(served: SimpleNamespace) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no loopback address of version 6")
    check_port("[::1]", port)
    words = [sys.executable, "-m", "mage", "serve", "--model", "digits", "--host", "::1", "--port", str(port), "--json"]
    variables = os.environ | {
        "PYTHONPATH": f"{served.folder}{os.pathsep}{ROOT}",
        "REACHED_OUT": str(served.reached_out),
    }
    with subprocess.Popen(words, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            assert json.loads(line)["url"] == f"http://[::1]:{port}/"
            assert b"MAGE" in fetch(f"http://[::1]:{port}/")
        finally:
            process.terminate()
            process.communicate(timeout=240)


def test_an_upload_larger_than_allowed_is_refused(served: SimpleNamespace) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        upload(served, "large.png", bytes(11_000_000))
    refused.value.close()
    assert refused.value.code == 413


def test_a_port_that_is_taken_is_told_in_a_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=rf"cannot listen on 127\.0\.0\.1, port {port} \(.*in use.*another --port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_gradio_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "mage-vision\[web\]"'):
        require_gradio()


def test_the_page_describes_the_calls_that_there_are(served: SimpleNamespace) -> None:
    described = json.loads(fetch(f"{served.url}gradio_api/info"))["named_endpoints"]
    assert set(described) == {"/generate", "/edit", "/reconstruct", "/look"}
    text = " ".join((Path(__file__).parents[2] / "docs" / "serve.md").read_text().split())
    for name, call in described.items():
        assert f"`{name.removeprefix('/')}`" in text
        for parameter in call["parameters"]:
            assert parameter["label"] in text, (name, parameter["label"])
