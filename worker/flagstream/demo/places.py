"""Where the demo's sink puts its windows, seen from outside: a folder, or a bucket of a server of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from flagstream.formats.gzip import HEADER_MAX, read_manifest
from flagstream.sinks.objects.file import FileSettings
from flagstream.sinks.settings import SinkSettings

Kind = Literal["file", "s3"]


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that the sink stored: its name, and what its manifest says."""

    name: str
    events: int
    size: int


class DemoTarget(Protocol):
    """Describes a place for the demo's windows."""

    noun: str
    """The word for what a window becomes there: "file" or "object"."""
    title: str
    """The place as people read it."""

    @property
    def settings(self) -> SinkSettings:
        """Return the settings of the sink that stores there."""
        ...

    def names(self) -> Sequence[str]:
        """Return the names of all that is there, sorted."""
        ...

    def look(self, name: str) -> Stored:
        """Return what is there under a name."""
        ...

    def fetch(self) -> Sequence[Path]:
        """Return all of it as files, to be read back."""
        ...


@contextmanager
def place(kind: Kind, folder: Path, flush_interval: float) -> Iterator[DemoTarget]:
    """Open the place; its files, or copies of its objects, are in ``folder``. Raises SeaweedMissing."""
    if kind == "file":
        yield Folder(folder, flush_interval)
        return
    # loads Amazon's library
    from flagstream.demo.bucket import Bucket
    from flagstream.demo.seaweed import SeaweedFs

    with SeaweedFs() as server:
        yield Bucket(server.settings(flush_interval=flush_interval), folder)


class Folder:
    """A place of files."""

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
