"""What stands before the page: headers of security, no requests of other sites, bounded bodies and uploads.

A refusal is a JSON object {"detail": SENTENCE}.
"""

import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from mage.web.limits import LIMITS, Limits

POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
"""Content security policy: the browser itself refuses whatever is not from this server."""
SECURE = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
KEPT_SECONDS = 3600
"""Age at which files of visitors are deleted."""
LEAST = 100_000
"""Bytes that an upload counts at least: small ones cost room, too."""

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Guard:
    """Adds headers of security to every answer, and refuses what the page itself would never ask for."""

    def __init__(self, app: Any, limits: Limits = LIMITS, names: Collection[str | None] = ()) -> None:
        """Names: of hosts that this page is also known by."""
        self.app, self.limits, self.names = app, limits, names
        self._uploads: deque[tuple[float, int]] = deque()  # time and bytes of those that may still be kept

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Pass the call on, or refuse it."""

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *SECURE]
            await send(message)

        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, with_headers)
            return
        status, sentence = refusal
        body = json.dumps({"detail": sentence}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await with_headers({"type": "http.response.start", "status": status, "headers": headers})
        await with_headers({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence for a request that is refused."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_own(headers):
            named = headers.get(b"host", "without a name")
            return 403, (
                f"requests of other sites are refused: {headers[b'origin']} is not this page, {named}; a proxy must "
                "pass on Host or X-Forwarded-Host"
            )
        if scope["method"] != "POST":
            return None
        size = headers.get(b"content-length", "")
        if not size.isdecimal():
            return 411, "a request with a body must state its length"
        if int(size) > 4 * self.limits.upload_megabytes * 1_000_000:
            return 413, f"the request is larger than {4 * self.limits.upload_megabytes} MB"
        return self._upload_refusal(int(size)) if scope["path"].endswith("/upload") else None

    def _upload_refusal(self, size: int) -> tuple[int, str] | None:
        """Note an upload of so many bytes, or refuse it where all that is kept would become too much."""
        now, size = time.monotonic(), max(size, LEAST)
        while self._uploads and now - self._uploads[0][0] > 2 * KEPT_SECONDS:  # the oldest are looked for once an hour
            self._uploads.popleft()
        most = self.limits.uploads_megabytes
        if sum(bytes_of for _, bytes_of in self._uploads) + size > most * 1_000_000:
            return 429, f"visitors have uploaded {most} MB in two hours: try again later"
        self._uploads.append((now, size))
        return None

    def _is_own(self, headers: dict[bytes, str]) -> bool:
        """Whether a request comes from this page or from no page; a proxy tells the page's name."""
        if b"origin" not in headers:
            return True
        told = [headers.get(name, "").split(",")[0].strip() for name in (b"host", b"x-forwarded-host")]
        return host_of(headers[b"origin"]) in {*map(host_of, (f"//{name}" for name in told)), *self.names} - {None}


def host_of(address: str) -> str | None:
    """The name of the host in an address; None without one."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
