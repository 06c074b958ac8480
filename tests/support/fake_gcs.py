"""Runs fake-gcs-server, a Google Cloud Storage of one process in memory, for tests.

It honours `ifGenerationMatch` on simple and resumable uploads, also in races, which is why it was chosen.
"""

import faulthandler
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from signal import SIGKILL
from types import TracebackType
from typing import Any, Self

import pytest

from tests.support.child_process import die_with_parent
from tests.support.kafka_jars import REPOSITORY
from tests.support.kafka_process import free_ports

MODULE = "github.com/fsouza/fake-gcs-server"
VERSION = "v1.56.1"

# Measured: up in 0.1 s; the rest is for machines that are busy. Seconds.
START_TIMEOUT = 30.0

# Measured: 80 s on two cores with nothing cached, 230 s on busy ones. Seconds.
INSTALL_TIMEOUT = 900.0


class FakeGcs:
    """Runs a server at `url` with no buckets and no credentials.

    A context manager: entering starts it, leaving ends it with all that it held. It dies with its parent.
    Entering fails the test on a machine without Go.
    """

    def __init__(self) -> None:
        self._port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                server_binary(),
                "-scheme=http",
                "-host=127.0.0.1",
                f"-port={self._port}",
                "-backend=memory",
                f"-external-url={self.url}",
                "-log-level=error",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(SIGKILL),
        )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self._call("GET", "/storage/v1/b?project=test")
                return self
            except OSError:
                ended = self._process.poll()
                if ended is not None or time.monotonic() > deadline:
                    self.close()
                    raise AssertionError(f"fake-gcs-server is not up at {self.url}; ended: {ended}") from None
                time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; nothing when it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_TIMEOUT)

    def create_bucket(self, name: str) -> str:
        """A new bucket; returns its name."""
        self._call("POST", "/storage/v1/b?project=test", json.dumps({"name": name}).encode())
        return name

    def put(
        self, bucket: str, name: str, content: bytes = b"", metadata: dict[str, str] | None = None
    ) -> None:
        """Store an object past all conditions, as somebody else would."""
        resource = json.dumps({"name": name, "metadata": metadata or {}}).encode()
        lines = [
            b"--edge\r\nContent-Type: application/json\r\n",
            resource,
            b"--edge\r\nContent-Type: text/plain\r\n",
            content,
            b"--edge--\r\n",
        ]
        self._call(
            "POST",
            f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart",
            b"\r\n".join(lines),
            {"Content-Type": "multipart/related; boundary=edge"},
        )

    def delete(self, bucket: str, name: str) -> None:
        """Remove an object."""
        self._call("DELETE", _object(bucket, name))

    def names(self, bucket: str) -> list[str]:
        """Names of all objects, sorted."""
        listed = json.loads(self._call("GET", f"/storage/v1/b/{bucket}/o"))
        return sorted(item["name"] for item in listed.get("items", ()))

    def resource(self, bucket: str, name: str) -> dict[str, Any]:
        """What the server says of an object."""
        return dict(json.loads(self._call("GET", _object(bucket, name))))

    def content(self, bucket: str, name: str) -> bytes:
        """Return an object's bytes as stored."""
        return self._call("GET", _object(bucket, name) + "?alt=media")

    def _call(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        request = urllib.request.Request(self.url + path, body, headers or {}, method=method)
        with urllib.request.urlopen(request, timeout=START_TIMEOUT) as answer:
            response: http.client.HTTPResponse = answer
            return response.read()


def _object(bucket: str, name: str) -> str:
    return f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"


def server_binary() -> Path:
    """Return the path of the server's program; Go's module proxy and compiler make it the first time.

    It is kept in `.gcs/` of the repository, by version. Two processes may both build it: each in a folder of
    its own, and the first to rename it wins.
    """
    folder = REPOSITORY / ".gcs" / VERSION
    if not folder.exists():
        _install(folder)
    return folder / "fake-gcs-server"


def _install(folder: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.fail(
            "no Go on the path to build fake-gcs-server with; install it (Debian: golang-go), or leave these "
            "tests out: make test-more PYTEST_ARGS='-k \"not gcs\"'",
            pytrace=False,
        )
    # Building takes its time once; the test does not hang.
    faulthandler.cancel_dump_traceback_later()
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="install-") as scratch:
        target = Path(scratch) / "bin"
        done = subprocess.run(
            [go, "install", f"{MODULE}@{VERSION}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT,
            env={**os.environ, "GOBIN": str(target), "GOFLAGS": "-trimpath"},
        )
        if done.returncode != 0:
            pytest.fail(f"Go could not build fake-gcs-server:\n{done.stderr[-2000:]}")
        try:
            target.rename(folder)
        except OSError:
            if not folder.exists():
                raise
