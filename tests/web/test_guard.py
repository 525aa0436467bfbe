"""What stands before the page: foreign sites, large bodies and too many uploads are refused."""

import asyncio
import json
from typing import Any

import pytest

from mage.web import guard
from mage.web.guard import Guard
from mage.web.limits import Limits


def status(guarded: Guard, method: str = "GET", path: str = "/config", **headers: str) -> tuple[int, str]:
    """The status of a request, and the sentence of a refusal."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    asyncio.run(guarded(scope, None, send))
    assert (b"x-content-type-options", b"nosniff") in sent[0]["headers"]
    return sent[0]["status"], json.loads(sent[1]["body"])["detail"] if len(sent) > 1 else ""


async def page(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({}, 200),
        ({"origin": "http://here:7860"}, 200),
        ({"origin": "https://HERE"}, 200),
        ({"origin": "https://proxy", "x_forwarded_host": "proxy, inner"}, 200),
        ({"origin": "https://public"}, 200),
        ({"origin": "https://elsewhere"}, 403),
        ({"origin": "https://here.elsewhere"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
    ],
)
def test_requests_of_other_sites_are_refused(headers: dict[str, str], answer: int) -> None:
    guarded = Guard(page, names=("public",))
    assert status(guarded, host="here:7860", **headers)[0] == answer


def test_a_body_states_its_length_and_is_bounded() -> None:
    guarded = Guard(page, Limits(upload_megabytes=1))
    assert status(guarded, "POST", content_length="4000000") == (200, "")
    assert status(guarded, "POST", content_length="4000001") == (413, "the request is larger than 4 MB")
    assert status(guarded, "POST")[0] == 411


def test_uploads_are_bounded_until_the_older_ones_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("mage.web.guard.time.monotonic", lambda: now[0])
    guarded = Guard(page, Limits(upload_megabytes=10, uploads_megabytes=12))
    upload = {"method": "POST", "path": "/gradio_api/upload"}
    assert status(guarded, **upload, content_length="9000000")[0] == 200
    answer, sentence = status(guarded, **upload, content_length="9000000")
    assert (answer, sentence) == (429, "visitors have uploaded 12 MB in two hours: try again later")
    small = [status(guarded, **upload, content_length="1")[0] for _ in range(40)]
    assert small == [200] * 30 + [429] * 10, "small files cost room, too"
    now[0] = 2.0 * guard.KEPT_SECONDS + 1
    assert status(guarded, **upload, content_length="9000000")[0] == 200
