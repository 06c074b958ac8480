"""Where the demo's sink puts its windows, seen from outside: a folder, or a bucket of a server of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from worker.demo.seaweed import SeaweedFs
from worker.formats.gzip import HEADER_MAX, read_manifest
from worker.formats.manifest import parse_manifest
from worker.sinks.file import FileSettings
from worker.sinks.probing import PROBES
from worker.sinks.s3 import S3Settings
from worker.sinks.s3_client import connect
from worker.sinks.s3_store import MANIFEST
from worker.sinks.settings import SinkSettings

Kind = Literal["file", "s3"]


@dataclass(frozen=True, slots=True)
class Stored:
    """What the sink stored under a name, and what that says of itself."""

    name: str
    events: int
    size: int


class Place(Protocol):
    """A place for the demo's windows."""

    noun: str
    """What a window is there: a "file", an "object"."""
    title: str
    """Where that is, for people."""

    @property
    def settings(self) -> SinkSettings:
        """Of the sink that stores there."""
        ...

    def names(self) -> Sequence[str]:
        """The names of what is there, sorted."""
        ...

    def look(self, name: str) -> Stored:
        """What is there under a name."""
        ...

    def fetch(self) -> Sequence[Path]:
        """All of it as files, to be read back."""
        ...


@contextmanager
def place(kind: Kind, folder: Path, flush_interval: float) -> Iterator[Place]:
    """The place, whose files or copies of objects are to be in ``folder``. Raises SeaweedMissing."""
    if kind == "file":
        yield Folder(folder, flush_interval)
        return
    with SeaweedFs() as server:
        yield Bucket(server.settings(flush_interval=flush_interval), folder)


class Folder:
    """Files."""

    noun = "file"

    def __init__(self, folder: Path, flush_interval: float) -> None:
        self.title = str(folder)
        self.settings = FileSettings(path=folder, flush_interval=flush_interval)
        self._folder = folder

    def names(self) -> Sequence[str]:
        return [str(path.relative_to(self._folder)) for path in self.fetch()]

    def look(self, name: str) -> Stored:
        path = self._folder / name
        with path.open("rb") as file:
            manifest = read_manifest(file.read(HEADER_MAX))
        return Stored(name, manifest.records if manifest else 0, path.stat().st_size)

    def fetch(self) -> Sequence[Path]:
        return sorted(self._folder.glob("*/*/*.jsonl.gz"))


class Bucket:
    """Objects of a bucket."""

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
