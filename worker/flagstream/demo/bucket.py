"""A bucket of the demo's own S3 server is a place for its windows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flagstream.demo.places import Stored
from flagstream.formats.manifest import parse_manifest
from flagstream.sinks.objects.probing import PROBES
from flagstream.sinks.objects.s3.client import connect
from flagstream.sinks.objects.s3.settings import S3Settings
from flagstream.sinks.objects.s3.store import MANIFEST


class Bucket:
    """Implements :class:`flagstream.demo.places.DemoTarget` with objects."""

    noun = "object"

    def __init__(self, settings: S3Settings, folder: Path) -> None:
        self.title = f"s3://{settings.bucket} at {settings.endpoint}"
        self.settings: S3Settings = settings
        self._folder = folder
        self._client = connect(settings)

    def names(self) -> Sequence[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.settings.bucket)
        names = (found["Key"] for page in pages for found in page.get("Contents", ()))
        return [name for name in names if not name.startswith(PROBES)]

    def look(self, name: str) -> Stored:
        head = self._client.head_object(**self._at(name))
        manifest = parse_manifest(head["Metadata"].get(MANIFEST, "").encode())
        return Stored(name, manifest.records if manifest else 0, head["ContentLength"])

    def fetch(self) -> Sequence[Path]:
        copies = []
        for name in self.names():
            copy = self._folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(self._client.get_object(**self._at(name))["Body"].read())
            copies.append(copy)
        return copies

    def _at(self, name: str) -> dict[str, Any]:
        return {"Bucket": self.settings.bucket, "Key": name}
