"""What the file sink makes durable, and in which order: a window is committed once `create` returns."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from flagstream.chunk import Partition
from flagstream.formats.protocol import EncodedObject, Format
from flagstream.sinks.objects.file import STAGING, FileStore
from flagstream.window import Manifest, OffsetRange

MANIFEST = Manifest(OffsetRange(Partition("evaluations", 0), 0, 1), 1, "ab" * 32, "config")
CONTENT = EncodedObject((b"one ", b"two"), MANIFEST)
NAME = "evaluations/0/window"


@dataclass(frozen=True)
class Synced:
    """An fsync of a file that had these bytes, or of a folder. Paths begin at the folder of the test."""

    path: str
    content: bytes | None = None


@dataclass(frozen=True)
class Linked:
    """A file got its name."""

    path: str


@dataclass(frozen=True)
class AlwaysTheSame:
    """A format by which any file is the window that is delivered."""

    def compare(self, file: BinaryIO, ours: EncodedObject) -> str | None:
        return None


FORMAT = cast(Format, AlwaysTheSame())


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Synced | Linked]:
    """Every fsync and every link, in order; names of temporary files are left out."""
    seen: list[Synced | Linked] = []
    fsync, link = os.fsync, os.link

    def shown(path: Path) -> str:
        inside = path.relative_to(tmp_path)
        return str(inside.parent / "*.tmp" if path.suffix == ".tmp" else inside)

    def recorded_fsync(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        seen.append(Synced(shown(path), None if path.is_dir() else path.read_bytes()))

    def recorded_link(source: Any, target: Any) -> None:
        link(source, target)
        seen.append(Linked(shown(Path(target))))

    monkeypatch.setattr("os.fsync", recorded_fsync)
    monkeypatch.setattr("os.link", recorded_link)
    return seen


def opened(tmp_path: Path) -> FileStore:
    """A store whose folder is there."""
    store = FileStore(tmp_path / "archive")
    store.open()
    return store


def test_a_window_is_durable_before_create_returns(tmp_path: Path, trace: list[Synced | Linked]) -> None:
    """All bytes are synced before the file gets its name, and each folder that has a new entry after that."""
    store = opened(tmp_path)
    (tmp_path / "archive" / "evaluations" / "0").mkdir(parents=True)
    trace.clear()
    assert store.create(NAME, CONTENT, FORMAT)
    assert trace == [
        Synced(f"archive/{STAGING}/*.tmp", b"one two"),
        Linked(f"archive/{NAME}"),
        Synced("archive/evaluations/0"),
        Synced("archive/evaluations"),
        Synced("archive"),
    ]


def test_new_folders_are_durable_before_a_file_is_in_them(
    tmp_path: Path, trace: list[Synced | Linked]
) -> None:
    """The parent of each new folder is synced, from the root on, before the file gets its name."""
    store = opened(tmp_path)
    trace.clear()
    assert store.create(NAME, CONTENT, FORMAT)
    before = trace[: trace.index(Linked(f"archive/{NAME}"))]
    assert before[1:] == [Synced("archive"), Synced("archive/evaluations")]


def test_a_file_that_is_there_is_made_durable(tmp_path: Path, trace: list[Synced | Linked]) -> None:
    """Its writer may have died before it synced the file or a folder, so whoever finds it does both."""
    store = opened(tmp_path)
    store.create(NAME, CONTENT, FORMAT)
    trace.clear()
    assert not store.create(NAME, CONTENT, FORMAT)
    assert trace == [
        Synced(f"archive/{STAGING}/*.tmp", b"one two"),
        Synced(f"archive/{NAME}", b"one two"),
        Synced("archive/evaluations/0"),
        Synced("archive/evaluations"),
        Synced("archive"),
    ]


def test_the_folder_of_the_sink_is_durable_once_it_is_open(
    tmp_path: Path, trace: list[Synced | Linked]
) -> None:
    """`open` syncs the parents of the folders that it creates, and the folder itself."""
    store = FileStore(tmp_path / "data" / "archive")
    store.open()
    folders: Sequence[str] = [one.path for one in trace if isinstance(one, Synced) and one.content is None]
    assert folders == [".", "data", "data/archive", "data/archive"]


def test_the_folder_of_the_sink_is_synced_again_at_every_start(
    tmp_path: Path, trace: list[Synced | Linked]
) -> None:
    """A worker that created it may have died before it synced it."""
    opened(tmp_path)
    trace.clear()
    opened(tmp_path)
    assert trace[0] == Synced("archive")
