"""Windows as files: one file a window, published whole and never replaced. Exactly once.

A file is written under a temporary name, made durable, and then gets its name by a hard link, which fails
when the name is taken: of several writers one wins, and no reader ever sees half a file. So the file system
has to know hard links and ``link`` has to be atomic between all workers: local file systems, NFS, CephFS and
the like; not FAT, most FUSE mounts of object stores, or one local disk for each host of a fleet.
"""

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import Field

from worker.chunk import Partition
from worker.errors import ObjectConflict, SinkError, SinkRefused, SinkUnavailable
from worker.formats.gzip import HEADER_MAX, TRAILER_SIZE, read_manifest
from worker.formats.jsonl import DEFAULT_LEVEL, EXTENSIONS, Compression, EncodedObject, JsonLinesEncoder
from worker.formats.manifest import difference
from worker.sinks.names import DEFAULT_NAME, NameTemplate, ObjectName
from worker.sinks.protocol import Delivery
from worker.sinks.settings import SinkSettings
from worker.window import Manifest, Range

STAGING = ".flagstream-tmp"
"""The folder below ``path`` for files that are not whole yet: one place to clean up, and no reader's glob
meets them.
"""

STALE_AFTER = 86_400.0
"""Seconds after which a temporary file is taken for a dead process's. A frozen one that wakes later finds its
file gone and delivers again.
"""

_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS}
_REFUSED = _NO_LINKS | {
    errno.EACCES,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EFBIG,
    errno.EINVAL,
}
_READ_SIZE = 1 << 20


class FileSettings(SinkSettings):
    """Settings of a file sink."""

    type: Literal["file"] = Field(default="file", description="Files on a local or shared file system.")
    path: Path = Field(
        description=(
            "The folder for the files; created when missing. On one host or a file system that all workers "
            "share, with hard links (not FAT, not an object store mounted as a folder)."
        )
    )
    name: ObjectName = Field(
        default=DEFAULT_NAME,
        description=(
            "Template of a file's name below path. Must contain Topic, Partition, Start and End; Extension "
            "is jsonl.gz or jsonl."
        ),
    )
    compression: Compression = Field(default="gzip", description="How files are compressed.")
    compression_level: int = Field(
        default=DEFAULT_LEVEL,
        ge=1,
        le=9,
        description=(
            "1 to 9, from fast to small. 3 takes no more time than 1 and stores a tenth less; 6 stores a "
            "tenth to a fifth less again, in two to three times the time."
        ),
    )


class FileSink:
    """A :class:`~worker.sinks.protocol.Sink` of :class:`~worker.formats.jsonl.EncodedObject` payloads."""

    def __init__(self, settings: FileSettings) -> None:
        self._settings = settings
        self._root = settings.path
        extensions = (EXTENSIONS[settings.compression], *EXTENSIONS.values())
        self._names = NameTemplate(settings.name, extensions)
        # The level is left out: it changes neither names nor content. The folder is in: in another folder,
        # what is already there would not be found.
        shape = ("file", str(settings.path), settings.name, "jsonl", settings.compression)
        self.fingerprint = sha256("\0".join(shape).encode()).hexdigest()[:16]

    def open(self) -> None:
        """Creates the folder, proves it by writing, linking and deleting a file, and clears old temporary
        files.
        """
        with _translated(self._root):
            _make_folders(self._root / STAGING)
            _sync(self._root)
            with self._staged([b"probe"]) as staged:
                probe = staged.with_suffix(".link")
                os.link(staged, probe)
                probe.unlink()
            self._clear_stale()

    def begin(self, partition: Partition, start: int) -> JsonLinesEncoder:
        return JsonLinesEncoder(self._settings.compression, self._settings.compression_level)

    def deliver(self, manifest: Manifest, payload: EncodedObject) -> Delivery:
        target = self._root / self._names.render(manifest.range)
        with _translated(target):
            # Staged first: the staging folder is made by open() alone, so a file system that is no longer
            # mounted shows as an error here and is not filled with folders of the same names.
            with self._staged(payload.parts) as staged:
                _make_folders(target.parent)
                try:
                    os.link(staged, target)
                    created = True
                except FileExistsError:
                    self._compare(target, manifest, payload)
                    created = False
            # Also when it was there: its writer may have died before these.
            _sync_folders(target.parent, self._root)
        return Delivery(int(created), int(not created), payload.size if created else 0)

    def holdings(self, partition: Partition, start: int) -> Sequence[Range]:
        parse = self._names.parser(partition)
        folder, _, _ = self._names.prefix(partition).rpartition("/")
        depth = self._names.folders - folder.count("/") - bool(folder)
        with _translated(self._root / folder):
            names = _walk(self._root / folder, f"{folder}/" if folder else "", depth)
            found = {range_ for name in names if (range_ := parse(name)) and range_.end > start}
        return sorted(found, key=lambda range_: (range_.start, range_.end))

    def close(self) -> None:
        """Nothing is held between calls."""

    @contextmanager
    def _staged(self, parts: Sequence[bytes]) -> Iterator[Path]:
        """A temporary file with ``parts``, durable; gone when the block ends, however it ends."""
        path = self._root / STAGING / f"{secrets.token_hex(16)}.tmp"
        try:
            with open(path, "xb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            with suppress(OSError):
                path.unlink()

    def _compare(self, target: Path, manifest: Manifest, payload: EncodedObject) -> None:
        """Raises ObjectConflict unless ``target`` is our window, whole; makes its bytes durable."""
        if not stat.S_ISREG(target.stat().st_mode):
            raise ObjectConflict(f"{target} is no regular file")
        with open(target, "rb") as file:
            if self._settings.compression == "gzip":
                _compare_gzip(file, target, manifest, payload)
            elif not _same_bytes(file, payload.parts):
                raise ObjectConflict(f"{target} holds other bytes than the window {manifest}")
            os.fsync(file.fileno())

    def _clear_stale(self) -> None:
        horizon = time.time() - STALE_AFTER
        with os.scandir(self._root / STAGING) as entries:
            for entry in entries:
                # Another worker may be clearing too.
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < horizon:
                        os.unlink(entry.path)


def _compare_gzip(file: BinaryIO, target: Path, manifest: Manifest, payload: EncodedObject) -> None:
    found = read_manifest(file.read(HEADER_MAX))
    if found is None:
        raise ObjectConflict(f"{target} is not a file of ours: it does not say what it holds")
    if different := difference(manifest, found):
        raise ObjectConflict(f"{target}: {different}")
    # CRC and length of the uncompressed content: a copy that was cut short or changed does not end with them.
    trailer = payload.parts[-1][-TRAILER_SIZE:]
    file.seek(-len(trailer), os.SEEK_END)
    if file.read() != trailer:
        raise ObjectConflict(f"{target} is cut short or was changed: it ends with another checksum")


def _same_bytes(file: BinaryIO, parts: Sequence[bytes]) -> bool:
    for part in parts:
        for at in range(0, len(part), _READ_SIZE):
            piece = part[at : at + _READ_SIZE]
            if file.read(len(piece)) != piece:
                return False
    return not file.read(1)


def _walk(folder: Path | str, prefix: str, depth: int) -> Iterator[str]:
    """Names of the files ``depth`` folders below ``folder``, each with ``prefix``; none when the folder is
    missing.
    """
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if entry.name == STAGING:
                continue
            if depth == 0:
                yield prefix + entry.name
            elif entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", depth - 1)


def _make_folders(folder: Path) -> None:
    """Create ``folder`` with its parents, durably: each parent is synced so that the new entry outlives a
    power cut.
    """
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
        return
    except FileNotFoundError:
        _make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync_folders(folder: Path, root: Path) -> None:
    """Sync ``folder`` and its parents up to ``root``; a folder with nothing new costs next to nothing."""
    _sync(folder)
    if folder != root:
        _sync_folders(folder.parent, root)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turns an OSError into the SinkError that says who must act."""
    try:
        yield
    except OSError as error:
        raise failure(error, path) from error


def failure(error: OSError, path: Path) -> SinkError:
    """SinkRefused for what only a person can mend, SinkUnavailable for the rest (disk full, quota, I/O, stale
    NFS).
    """
    text = f"{error.filename or path}: {error.strerror or error}"
    if error.errno not in _REFUSED:
        return SinkUnavailable(text)
    if error.filename2 is not None and error.errno in _NO_LINKS:
        text = f"cannot link {error.filename} to {error.filename2}: {error.strerror}; path needs hard links"
    return SinkRefused(text)
