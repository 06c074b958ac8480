"""The file sink passes the contract of create-only sinks on a real file system."""

import gzip
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from flagstream.chunk import Partition
from flagstream.errors import ObjectConflict, SinkRefused, SinkUnavailable
from flagstream.formats.gzip import read_manifest
from flagstream.formats.manifest import manifest_json
from flagstream.formats.zstd import footer
from flagstream.sinks.objects.file import STAGING, FileSettings, FileSink
from flagstream.sinks.protocol import Delivery
from flagstream.testing import CreateOnlyContract, Window, event, events, fill
from flagstream.window import OtherwiseNamed

DIE_BEFORE_PUBLISHING = """
import os, pickle, signal, sys
from flagstream.sinks.objects.file import FileSink
settings, window = pickle.load(sys.stdin.buffer)
os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
FileSink(settings).deliver(window.manifest, window.payload)
"""

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from flagstream.errors import SinkRefused
from flagstream.sinks.objects.file import FileSettings, FileSink
from flagstream.testing import events, fill
sink = FileSink(FileSettings(path=sys.argv[1], compression="none"))
sink.open()
window = fill(sink, events(100))
try:
    sink.deliver(window.manifest, window.payload)
except SinkRefused as refusal:
    sys.exit(f"refused: {refusal}")
"""


def files(folder: Path) -> list[Path]:
    """Return all published files below ``folder``."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and STAGING not in path.parts)


def staged(folder: Path) -> list[Path]:
    return list((folder / STAGING).iterdir())


class FileContract(CreateOnlyContract):
    """The contract on a folder of its own; subclasses say how files are written."""

    sink_class = FileSink
    unacceptable = (b"", b"{", b"plain text", b'["a"]', b'{"a":1}\n{"b":2}', b'{"a":\n1}')
    options: ClassVar[dict[str, str]]

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "exports"
        (tmp_path / "file").write_bytes(b"")
        self.below_a_file = tmp_path / "file" / "exports"

    def settings(self) -> FileSettings:
        return FileSettings(path=self.folder, **self.options)  # type: ignore[arg-type]

    def settings_of_another_shape(self) -> FileSettings:
        name = "v2/{{.Topic}}/{{.Partition}}/{{.Start}}-{{.End}}"
        return FileSettings(path=self.folder, **{**self.options, "name": name})  # type: ignore[arg-type]

    def refusing_settings(self) -> FileSettings:
        return FileSettings(path=self.below_a_file)

    def die_half_way(self, window: Window) -> None:
        killed = subprocess.run(
            [sys.executable, "-c", DIE_BEFORE_PUBLISHING],
            input=pickle.dumps((self.settings(), window)),
            timeout=60,
        )
        assert killed.returncode == -signal.SIGKILL
        assert len(staged(self.folder)) == 1


class TestGzip(FileContract):
    """The contract holds for compressed files."""

    options: ClassVar = {}

    def read_back(self) -> list[bytes]:
        return [
            line for path in files(self.folder) for line in gzip.decompress(path.read_bytes()).splitlines()
        ]


class TestPlain(FileContract):
    """Files without compression, which cannot say what they hold."""

    options: ClassVar = {"compression": "none"}

    def read_back(self) -> list[bytes]:
        return [line for path in files(self.folder) for line in path.read_bytes().splitlines()]


class TestFlatNames(TestGzip):
    """All files in one folder, so that every listing sees every partition's names."""

    options: ClassVar = {"name": "{{.Topic}}-{{.Partition}}-{{.Start}}{{.End}}.{{.Extension}}"}


class TestRangeFirst(TestGzip):
    """A template that gives listings no folder to start from."""

    options: ClassVar = {"name": "by-start/{{ .Start }}/{{ .Partition }}-{{ .Topic }}/{{ .End }}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a" / "b"


@pytest.fixture
def sink(folder: Path) -> FileSink:
    sink = FileSink(FileSettings(path=folder))
    sink.open()
    return sink


def test_name_and_manifest(sink: FileSink, folder: Path) -> None:
    """A file is named by topic, partition and padded offsets, and carries its manifest."""
    window = fill(sink, events(3), start=5)
    sink.deliver(window.manifest, window.payload)
    path = folder / "evaluations/3/0000000000000000005-0000000000000000008.jsonl.gz"
    assert [path] == files(folder)
    assert window.manifest == read_manifest(path.read_bytes())


def test_no_temporary_file_stays(sink: FileSink, folder: Path) -> None:
    """Neither a success, nor one found there, nor a conflict leaves a temporary file."""
    window = fill(sink, events(3))
    for _ in range(2):
        sink.deliver(window.manifest, window.payload)
    other = fill(sink, events(3, 7))
    with pytest.raises(ObjectConflict):
        sink.deliver(other.manifest, other.payload)
    assert staged(folder) == []


def test_conflict_says_where_and_what(sink: FileSink, folder: Path) -> None:
    """The text of a conflict names the file and what differs."""
    window, other = fill(sink, events(3)), fill(sink, events(2, 1), offsets=[1, 2])
    sink.deliver(window.manifest, window.payload)
    with pytest.raises(
        ObjectConflict, match=r"0000000000000000003\.jsonl\.gz: it holds 3 records, the window has 2"
    ):
        sink.deliver(other.manifest, other.payload)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_file_is_a_conflict(sink: FileSink, folder: Path, keep: int) -> None:
    """A file that somebody cut short is not taken for the window."""
    window = fill(sink, events(300))
    sink.deliver(window.manifest, window.payload)
    (path,) = files(folder)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ObjectConflict, match=r"not a file of ours|cut short"):
        sink.deliver(window.manifest, window.payload)


def test_truncated_behind_its_manifest(sink: FileSink, folder: Path) -> None:
    """A file is damaged also if it still says what it held."""
    window = fill(sink, events(3000))
    sink.deliver(window.manifest, window.payload)
    (path,) = files(folder)
    path.write_bytes(path.read_bytes()[:2000])
    assert window.manifest == read_manifest(path.read_bytes())
    with pytest.raises(ObjectConflict, match="cut short"):
        sink.deliver(window.manifest, window.payload)


def test_a_zstd_file_of_a_former_version_is_the_window(folder: Path) -> None:
    """Its manifest stands in front: a window that was stored before an upgrade is found after it."""
    sink = FileSink(FileSettings(path=folder, compression="zstd"))
    sink.open()
    window = fill(sink, events(300))
    sink.deliver(window.manifest, window.payload)
    (path,) = files(folder)
    text = manifest_json(window.manifest)
    content = path.read_bytes().removesuffix(footer(window.manifest))
    path.write_bytes(b"P*M\x18" + len(text).to_bytes(4, "little") + text + content)

    again = sink.deliver(window.manifest, window.payload)

    assert (again.created, again.existing) == (0, 1)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ObjectConflict, match="cut short"):
        sink.deliver(window.manifest, window.payload)


@pytest.mark.parametrize("longer", [b"", b'{"a":1}\n'])
def test_plain_file_that_differs(folder: Path, longer: bytes) -> None:
    """A plain file is compared byte by byte, to its end."""
    sink = FileSink(FileSettings(path=folder, compression="none"))
    sink.open()
    window = fill(sink, events(10))
    sink.deliver(window.manifest, window.payload)
    (path,) = files(folder)
    path.write_bytes(path.read_bytes() + longer if longer else path.read_bytes()[:-1])
    with pytest.raises(ObjectConflict, match="other bytes"):
        sink.deliver(window.manifest, window.payload)


def test_other_level_is_the_same_window(folder: Path) -> None:
    """Compressed bytes are not compared: a worker with another level or zlib finds the window there."""
    fast, small = (FileSink(FileSettings(path=folder, compression_level=level)) for level in (1, 9))
    fast.open()
    window, again = fill(fast, events(1000)), fill(small, events(1000))
    assert window.payload != again.payload
    assert fast.fingerprint == small.fingerprint
    fast.deliver(window.manifest, window.payload)
    assert Delivery(0, 1, 0) == small.deliver(again.manifest, again.payload)


def test_folder_in_the_way(sink: FileSink, folder: Path) -> None:
    """A folder with the file's name is a conflict, not a success."""
    window = fill(sink, events(1))
    (folder / "evaluations/3/0000000000000000000-0000000000000000001.jsonl.gz").mkdir(parents=True)
    with pytest.raises(ObjectConflict, match="not a regular file"):
        sink.deliver(window.manifest, window.payload)


def test_foreign_files_are_no_holdings(sink: FileSink, folder: Path) -> None:
    """Names that are not exactly ours, and temporary files, are passed over."""
    window = fill(sink, events(1))
    sink.deliver(window.manifest, window.payload)
    for name in (
        "0000000000000000001-0000000000000000002.jsonl.gz.bak",
        "1-2.jsonl.gz",
        "0000000000000000009-0000000000000000009.jsonl.gz",
        ".0000000000000000001-0000000000000000002.jsonl.gz",
        "_SUCCESS",
    ):
        (folder / "evaluations/3" / name).touch()
    (folder / "evaluations/README").touch()
    assert [window.manifest.range] == sink.holdings(window.manifest.range.partition, 0)


def test_files_of_another_compression_are_holdings(sink: FileSink, folder: Path) -> None:
    """After a change of the compression, what is there already still counts as held, under its old name."""
    window = fill(sink, events(1))
    sink.deliver(window.manifest, window.payload)
    plain = FileSink(FileSettings(path=folder, compression="none"))
    range_ = window.manifest.range
    name = f"evaluations/3/{range_.start:019}-{range_.end:019}.jsonl.gz"
    held = OtherwiseNamed(range_.partition, range_.start, range_.end, name)
    assert [held] == plain.holdings(range_.partition, 0)
    assert plain.fingerprint != sink.fingerprint


def test_old_temporary_files_are_removed(sink: FileSink, folder: Path) -> None:
    """``open`` removes temporary files older than a day, and leaves those of live workers."""
    old, fresh = folder / STAGING / "old.tmp", folder / STAGING / "fresh.tmp"
    for path in (old, fresh):
        path.touch()
    os.utime(old, (1_600_000_000, 1_600_000_000))
    sink.open()
    assert [fresh] == staged(folder)


def test_frozen_writer_whose_file_is_gone(
    sink: FileSink, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that wakes after its temporary file was removed publishes nothing and may try again."""
    link = os.link

    def woken(source: Path, target: Path) -> None:
        Path(source).unlink()
        link(source, target)

    window = fill(sink, events(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", woken)
        with pytest.raises(SinkUnavailable):
            sink.deliver(window.manifest, window.payload)
    assert files(folder) == []
    assert sink.deliver(window.manifest, window.payload).created == 1


def test_unmounted_file_system(sink: FileSink, folder: Path) -> None:
    """When the folder's content is gone, as after an unmount, nothing is written into what is left."""
    folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()
    window = fill(sink, events(1))
    with pytest.raises(SinkUnavailable, match="No such file"):
        sink.deliver(window.manifest, window.payload)
    assert list(folder.iterdir()) == []


def test_file_where_a_folder_should_be(sink: FileSink, folder: Path) -> None:
    """A file in the place of a partition's folder needs a person."""
    (folder / "evaluations").write_bytes(b"")
    window = fill(sink, [event(1)])
    with pytest.raises(SinkRefused, match="Not a directory"):
        sink.deliver(window.manifest, window.payload)


def test_a_refusal_names_the_file_and_not_its_temporary_one(folder: Path) -> None:
    """A temporary name says nothing to people, and is gone when they look."""
    name = "{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}"
    sink = FileSink(FileSettings(path=folder, name=name, compression="none"))
    sink.open()
    window = fill(sink, events(1), partition=Partition("t" * 249, 0))

    with pytest.raises(SinkRefused, match="File name too long") as refused:
        sink.deliver(window.manifest, window.payload)

    assert str(folder / f"{'t' * 249}-0-") in str(refused.value)
    assert STAGING not in str(refused.value)


def test_size_limit_of_the_process(tmp_path: Path) -> None:
    """A write that fails half-way leaves neither a file nor a temporary one; the reason is reported."""
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "refused: " in ended.stderr
    assert "File too large (write)" in ended.stderr
    assert files(tmp_path) == []
    assert staged(tmp_path) == []


def test_gzip_tools_read_it(sink: FileSink, folder: Path) -> None:
    """``gzip -t`` and ``zcat`` accept the file with its extra field."""
    window = fill(sink, events(100))
    sink.deliver(window.manifest, window.payload)
    (path,) = files(folder)
    assert subprocess.run(["gzip", "-t", path], timeout=60).returncode == 0
    text = subprocess.run(["gzip", "-dc", path], stdout=subprocess.PIPE, timeout=60, check=True).stdout
    assert window.exported == text.splitlines()
