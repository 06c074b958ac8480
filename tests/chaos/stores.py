"""Reads the places of objects with other tools than the worker's: the file system, boto3, Google's client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

_OF_THE_SINKS = (".flagstream-tmp/", ".flagstream-probe/")
"""Folders for what is not an object of a window (docs/sinks)."""


class Stored(NamedTuple):
    """An object, and the manifest that the store keeps beside it: None where it cannot keep any, empty where
    it could and does not.
    """

    data: bytes
    manifest: dict[str, Any] | None


class Store(Protocol):
    """What is below a sink's place. Names are relative to it."""

    def names(self) -> list[str]:
        """Return the objects, sorted."""
        ...

    def read(self, name: str) -> Stored:
        """Raises LookupError when there is no such object."""
        ...


class Folder:
    """Reads files below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        files = (path for path in self._root.rglob("*") if not path.is_dir())
        return _objects(path.relative_to(self._root).as_posix() for path in files)

    def read(self, name: str) -> Stored:
        try:
            return Stored((self._root / name).read_bytes(), None)
        except FileNotFoundError as error:
            raise LookupError(name) from error


class S3Bucket:
    """Reads objects below `prefix`; `client` is boto3's."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def names(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix
        )
        found = (each["Key"] for page in pages for each in page.get("Contents", ()))
        return _objects(key.removeprefix(self._prefix) for key in found)

    def read(self, name: str) -> Stored:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
        except self._client.exceptions.NoSuchKey as error:
            raise LookupError(name) from error
        return Stored(answer["Body"].read(), _manifest(answer["Metadata"]))


class GcsBucket:
    """All objects of `bucket`, which is google.cloud.storage's."""

    def __init__(self, bucket: Any) -> None:
        self._bucket = bucket

    def names(self) -> list[str]:
        return _objects(blob.name for blob in self._bucket.list_blobs())

    def read(self, name: str) -> Stored:
        blob = self._bucket.get_blob(name)
        if blob is None:
            raise LookupError(name)
        return Stored(blob.download_as_bytes(raw_download=True), _manifest(blob.metadata or {}))


def _objects(names: Iterator[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith(_OF_THE_SINKS))


def _manifest(metadata: dict[str, str]) -> dict[str, Any]:
    return dict(json.loads(metadata.get("flagstream", "{}")))
