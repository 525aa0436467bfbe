"""An object store on this machine for studies and tests: moto's S3 server, in a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 300
"""Longest time until the server answers, on a busy machine."""


@contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """Run an empty store; yields the environment variables by which S3 clients find it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, server)
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.kill()
        server.wait()


def _wait(address: str, server: "subprocess.Popen[bytes]") -> None:
    """Wait until the server answers."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
            return
        except urllib.error.HTTPError as error:  # it answers
            error.close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{address} does not answer: is moto[server] installed?")


def client() -> Any:
    """An S3 client of boto3 for the store that the environment names."""
    import boto3

    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def upload(folder: Path, bucket: str) -> None:
    """Put all files below a folder into a new bucket, under their names relative to it."""
    store = client()
    store.create_bucket(Bucket=bucket)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put_object(Bucket=bucket, Key=path.relative_to(folder).as_posix(), Body=path.read_bytes())
