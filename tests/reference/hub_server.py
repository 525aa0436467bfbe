"""A stand-in of the Hugging Face Hub on this machine: the endpoints that huggingface-hub calls to share a model.

Repositories are kept in memory, as commits of path -> bytes. Written from what the client sends and expects; large
files go through the LFS batch endpoint, as they do where hf-xet is not installed.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

READ, WRITE = "token-that-reads", "token-that-writes"


@dataclass
class Repository:
    """One model: branches point to commits, commits hold all files."""

    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def add_commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        content = json.dumps([len(self.commits), message, sorted(files)]).encode()
        sha = hashlib.sha1(content).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        self.messages.append(message)
        return sha

    def find(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Hub:
    """What the server holds and what was asked of it."""

    address: str = ""
    models: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    status: int | None = None
    """Answer everything with this status."""
    code: str = ""
    """The Hub's name of the error, beside the status."""
    cut: str | None = None
    """Break off the transfer of this file half way."""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

        def do_GET(self) -> None:
            self._answer()

        do_HEAD = do_POST = do_PUT = do_GET

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            path = urlsplit(self.path).path
            hub.requests.append(f"{self.command} {unquote(path)}")
            if hub.status is not None:
                return self._send(hub.status, {"error": "no"}, {"X-Error-Code": hub.code})
            for pattern, method in ROUTES:
                if match := re.fullmatch(pattern, path):
                    return getattr(self, method)(*map(unquote, match.groups()), body=body)
            self._send(404, {"error": "no such page"}, {"X-Error-Code": "EntryNotFound"})

        @property
        def _token(self) -> str:
            return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

        def _send(self, status: int, body: Any = b"", headers: dict[str, str] | None = None) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _readable(self, name: str) -> Repository | None:
            """The model, if the caller may see it; else the answer is sent: the Hub hides what is private."""
            model = hub.models.get(name)
            if model is None or (model.private and self._token not in (READ, WRITE)):
                self._send(404 if self._token else 401, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
                return None
            return model

        def _writable(self) -> bool:
            if self._token != WRITE:
                self._send(403 if self._token else 401, {"error": "no"}, {"X-Error-Message": "Invalid credentials"})
            return self._token == WRITE

        def create(self, *, body: bytes) -> None:
            if not self._writable():
                return
            values = json.loads(body)
            name = f"{values['organization']}/{values['name']}"
            if name in hub.models:
                return self._send(409, {"error": "exists", "url": f"{hub.address}/{name}"})
            model = hub.models[name] = Repository(private=values.get("visibility") == "private")
            model.add_commit("main", {".gitattributes": b""}, "initial commit")
            self._send(200, {"url": f"{hub.address}/{name}"})

        def branch(self, name: str, branch: str, *, body: bytes) -> None:
            model = self._readable(name)
            if model is None or not self._writable():
                return
            status = 409 if branch in model.branches else 200
            model.branches.setdefault(branch, model.branches["main"])
            self._send(status, {})

        def info(self, name: str, revision: str | None = None, *, body: bytes) -> None:
            if (model := self._readable(name)) is None:
                return
            if (sha := model.find(revision or "main")) is None:
                return self._send(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
            self._send(200, {"id": name, "sha": sha, "private": model.private, "tags": [], "siblings": []})

        def tree(self, name: str, revision: str, *, body: bytes) -> None:
            if (model := self._readable(name)) is None:
                return
            if (sha := model.find(revision)) is None:
                return self._send(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
            entries = []
            for path, data in model.commits[sha].items():
                oid = hashlib.sha256(data).hexdigest()
                lfs = {"lfs": {"oid": oid, "size": len(data), "pointerSize": 134}} if _is_large(path) else {}
                entries.append({"type": "file", "path": path, "size": len(data), "oid": oid[:40], **lfs})
            self._send(200, entries)

        def validate(self, *, body: bytes) -> None:
            front = json.loads(body)["content"].split("---\n")
            good = len(front) >= 3 and "library_name:" in front[1]
            self._send(200 if good else 400, {"errors": [] if good else [{"message": "no settings"}], "warnings": []})

        def preupload(self, name: str, revision: str, *, body: bytes) -> None:
            if self._readable(name) is None or not self._writable():
                return
            files = [
                {"path": file["path"], "uploadMode": "lfs" if _is_large(file["path"]) else "regular",
                 "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            self._send(200, {"files": files})

        def batch(self, name: str, *, body: bytes) -> None:
            if self._readable(name) is None or not self._writable():
                return
            objects: list[dict[str, Any]] = []
            for one in json.loads(body)["objects"]:
                actions = {"actions": {"upload": {"href": f"{hub.address}/upload/{one['oid']}"}}}
                objects.append(one | ({} if one["oid"] in hub.blobs else actions))
            self._send(200, {"objects": objects, "transfer": "basic"})

        def upload(self, oid: str, *, body: bytes) -> None:
            right = hashlib.sha256(body).hexdigest() == oid
            if right:
                hub.blobs[oid] = body
            self._send(200 if right else 400)

        def commit(self, name: str, revision: str, *, body: bytes) -> None:
            model = self._readable(name)
            if model is None or not self._writable():
                return
            if revision not in model.branches:
                return self._send(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
            files, message = dict(model.commits[model.branches[revision]]), ""
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "header":
                    message = value["summary"]
                elif entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    files[value["path"]] = hub.blobs[value["oid"]]
                elif entry["key"] == "deletedFile":
                    del files[value["path"]]
            sha = model.add_commit(revision, files, message)
            self._send(200, {"commitUrl": f"{hub.address}/{name}/commit/{sha}", "commitOid": sha})

        def resolve(self, name: str, revision: str, path: str, *, body: bytes) -> None:
            if (model := self._readable(name)) is None:
                return
            sha = model.find(revision)
            if sha is None or path not in model.commits[sha]:
                code = "RevisionNotFound" if sha is None else "EntryNotFound"
                return self._send(404, {"error": "no"}, {"X-Error-Code": code})
            data = model.commits[sha][path]
            headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
            if path == hub.cut and self.command == "GET":
                self._send(200, data[: len(data) // 2], headers | {"Content-Length": str(len(data))})
                self.close_connection = True
                return
            self._send(200, data, headers)

    return Handler


NAME, REVISION = r"([\w.-]+/[\w.-]+)", "([^/]+)"
ROUTES = (
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "validate"),
    (rf"/api/models/{NAME}/branch/{REVISION}", "branch"),
    (rf"/api/models/{NAME}/revision/{REVISION}", "info"),
    (rf"/api/models/{NAME}/tree/{REVISION}", "tree"),
    (rf"/api/models/{NAME}/preupload/{REVISION}", "preupload"),
    (rf"/api/models/{NAME}/commit/{REVISION}", "commit"),
    (rf"/api/models/{NAME}", "info"),
    (rf"/{NAME}\.git/info/lfs/objects/batch", "batch"),
    (r"/upload/(\w+)", "upload"),
    (rf"/{NAME}/resolve/{REVISION}/(.+)", "resolve"),
)


def _is_large(path: str) -> bool:
    return path.endswith(".safetensors")


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers on this machine until the end of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
