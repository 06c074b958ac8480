"""Windows as files: one file a window, published whole and never replaced. This is exactly once.

A file is written under a temporary name and made durable. Then it gets its name by a hard link, which fails
if the name is taken: of several writers one wins, and no reader ever sees half a file. So the file system
must have hard links, and ``link`` must be atomic between all workers: local file systems, NFS, CephFS and the
like; not FAT, most FUSE mounts of object stores, or one local disk for each host of a fleet.
"""

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import structlog
from pydantic import Field

from flagstream.errors import ObjectConflict, SinkError, SinkRefused, SinkUnavailable
from flagstream.formats.protocol import EncodedObject, Format
from flagstream.outcomes import Proof
from flagstream.sinks.objects.places import NameLimits
from flagstream.sinks.objects.settings import ObjectSettings
from flagstream.sinks.objects.sink import ObjectSink

log = structlog.get_logger(__name__)

STAGING = ".flagstream-tmp"
"""The folder below ``path`` for incomplete files: one place to clean up, and no reader's glob finds them.
With the names in it, it is shorter than any file's name (two offsets alone are 38 bytes), so if the name of a
file fits, that of its temporary file does too.
"""

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Most bytes of names and paths in Linux and nearly all file systems (NAME_MAX, PATH_MAX without its
final zero).
"""

STALE_AFTER = 86_400.0
"""Seconds after which a temporary file counts as one of a dead process. If the process was frozen and wakes
later, its file is gone and it delivers again.
"""

_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS}
_DENIED = _NO_LINKS | {errno.EACCES, errno.EROFS}
"""Errors about rights and mounts, which people take away and give back. The others below are about the file's
name or size.
"""
_REFUSED = _DENIED | {
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EFBIG,
    errno.EINVAL,
}


_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EISDIR}
"""Errors of file systems that cannot sync a folder (FUSE, 9p, CIFS). Files are complete there too, but their
names cannot be made durable on demand.
"""


_LOST = (
    "after a power cut or a crash of the machine, files that were written shortly before can be missing, and "
    "their events with them, for their offsets are committed"
)


class FileSettings(ObjectSettings):
    """Settings of a file sink."""

    type: Literal["file"] = Field(default="file", description="Files on a local or shared file system.")
    path: Path = Field(
        description=(
            "The folder for the files; created when missing. On one host or a file system that all workers "
            "share, with hard links (not FAT, not an object store mounted as a folder)."
        )
    )

    def place(self) -> NameLimits:
        root = f"{os.path.abspath(self.path)}/".replace("//", "/")
        return NameLimits("file", root, len(os.fsencode(self.path)) + 1, LONGEST_PATH, LONGEST_NAME)

    def where(self) -> str:
        return os.path.join(self.path, "")

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        if self.name.partition("/")[0] == STAGING:
            yield "name", f"begins with {STAGING}/, whose files are removed after a day; write another folder"


class FileSink(ObjectSink):
    """Implements :class:`~flagstream.sinks.objects.ObjectSink` with files."""

    def __init__(self, settings: FileSettings) -> None:
        super().__init__(FileStore(settings.path), settings)
        self._root = settings.path

    def open(self) -> None:
        super().open()
        # Some have less, such as 143 with eCryptfs. All workers share one file system, so they find the same
        # limits.
        with _translated(self._root):
            limits = [os.pathconf(self._root, what) for what in ("PC_PATH_MAX", "PC_NAME_MAX")]
        path, name = (limit if limit > 0 else LONGEST_PATH for limit in limits)
        self.limit_names(path - 1, name)


class FileStore:
    """Implements :class:`~flagstream.sinks.objects.ObjectStore` below the folder ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.place = f"file\0{root}"
        self._unsynced: str | None = None

    def open(self) -> None:
        """Create the folder, write, link and delete a file in it, and remove old temporary files. It logs a
        warning if folders cannot be synced.
        """
        self._prepare()
        if self._unsynced is not None:
            log.warning("folders_not_synced", path=str(self._root), error=self._unsynced, lost=_LOST)

    def _prepare(self) -> None:
        with _translated(self._root):
            _make_folders(self._root / STAGING, self._sync)
            self._sync(self._root)
            with self._staged([b"probe"]) as staged:
                probe = staged.with_suffix(".link")
                with _call("link"):
                    os.link(staged, probe)
                with _call("unlink"):
                    probe.unlink()
            with _call("scandir"):
                self._clear_stale()

    def _sync(self, folder: Path) -> None:
        """Make the names in ``folder`` durable, if the file system can."""
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            error.add_note("fsync of the folder")
            if error.errno not in _NO_FOLDER_SYNC:
                raise
            self._unsynced = str(failure(error, folder))

    def create(self, name: str, content: EncodedObject, kind: Format) -> bool:
        target = self._root / name
        with _translated(target):
            # Stage first: only open() makes the staging folder, so if the file system is no longer mounted,
            # this fails and makes no folders of the same names.
            with self._staged(content.parts) as staged:
                _make_folders(target.parent, self._sync)
                try:
                    with _call("link"):
                        os.link(staged, target)
                    created = True
                except FileExistsError:
                    _compare(target, content, kind)
                    created = False
            # Even if it was there: its writer may have died before it synced them.
            self._sync_folders(target.parent)
        return created

    def _sync_folders(self, folder: Path) -> None:
        """Sync ``folder`` and its parents up to the root. A folder without changes costs next to nothing."""
        self._sync(folder)
        if folder != self._root:
            self._sync_folders(folder.parent)

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        folder, _, _ = prefix.rpartition("/")
        with _translated(self._root / folder), _call("scandir"):
            for name in _walk(self._root / folder, f"{folder}/" if folder else ""):
                if name.startswith(prefix):
                    yield name

    def probe(self) -> Iterator[Proof]:
        probe = f"{STAGING}/{secrets.token_hex(8)}.probe"
        try:
            self._prepare()
            warning = f"; {self._unsynced}: {_LOST}" if self._unsynced is not None else ""
            yield Proof("write", "proved", f"a file below {self._root}{warning}")
            with self._staged([b"probe"]) as staged:
                (self._root / probe).hardlink_to(staged)
                try:
                    (self._root / probe).hardlink_to(staged)
                    yield Proof("conditional write", "failed", "a second link replaced the first")
                except FileExistsError:
                    yield Proof("conditional write", "proved", "a name that is taken is not taken again")
            (self._root / probe).read_bytes()
            yield Proof("read", "proved")
            next(self.names(""), None)
            yield Proof("list", "proved")
            (self._root / probe).unlink()
            yield Proof("delete", "proved")
        except (OSError, SinkError) as error:
            yield Proof("write", "failed", str(error))

    def close(self) -> None:
        """Do nothing: the store holds nothing between calls."""

    @contextmanager
    def _staged(self, parts: Sequence[bytes]) -> Iterator[Path]:
        """Give the block a durable temporary file with ``parts``, and remove it when the block ends in
        any way.
        """
        path = self._root / STAGING / f"{secrets.token_hex(8)}.tmp"
        try:
            with _call("open"):
                file = open(path, "xb")  # noqa: SIM115  # closed below; each call is named when it fails
            with _call("write"), file:  # closing it writes what is left, once more after a failure
                file.writelines(parts)
                file.flush()
                with _call("fsync"):
                    os.fsync(file.fileno())
            yield path
        finally:
            with suppress(OSError):
                path.unlink()

    def _clear_stale(self) -> None:
        horizon = time.time() - STALE_AFTER
        with os.scandir(self._root / STAGING) as entries:
            for entry in entries:
                # Another worker may be clearing too.
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < horizon:
                        os.unlink(entry.path)


def _compare(target: Path, content: EncodedObject, kind: Format) -> None:
    """Make the bytes of ``target`` durable. Raises ObjectConflict unless it is our object, complete."""
    with _call("stat"):
        mode = target.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ObjectConflict(f"{target} is not a regular file")
    with _call("read"), open(target, "rb") as file:
        if different := kind.compare(file, content):
            raise ObjectConflict(f"{target}: {different} ({content.manifest})")
        with _call("fsync"):
            os.fsync(file.fileno())


def _walk(folder: Path | str, prefix: str) -> Iterator[str]:
    """Yield the names of the files below ``folder``, each with ``prefix``; none if the folder is missing."""
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if entry.name == STAGING:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name


def _make_folders(folder: Path, sync: Callable[[Path], None]) -> None:
    """Create ``folder`` with its parents, durably: each parent is synced, so that the new entry survives a
    power cut.
    """
    try:
        with _call("mkdir"):
            folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
        return
    except FileNotFoundError:
        _make_folders(folder.parent, sync)
        with _call("mkdir"):
            folder.mkdir(exist_ok=True)
    sync(folder.parent)


@contextmanager
def _call(name: str) -> Iterator[None]:
    """Note in an OSError which call raised it, the innermost one: the system's text does not say it."""
    try:
        yield
    except OSError as error:
        error.add_note(name)
        raise


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn an OSError into the SinkError that says who must act."""
    try:
        yield
    except OSError as error:
        raise failure(error, path) from error


def failure(error: OSError, path: Path) -> SinkError:
    """Return SinkRefused for an error that only a person can mend, and SinkUnavailable for all others (disk
    full, quota, I/O, stale NFS).
    """
    call = next(iter(getattr(error, "__notes__", ())), "")
    text = f"{_concerned(error, path)}: {error.strerror or error}" + (f" ({call})" if call else "")
    if error.errno not in _REFUSED:
        return SinkUnavailable(text)
    if error.filename2 is not None and error.errno in _NO_LINKS:
        text = f"cannot link {error.filename} to {error.filename2}: {error.strerror}; path needs hard links"
    return SinkRefused(text, denied=error.errno in _DENIED)


def _concerned(error: OSError, path: Path) -> str:
    """Return the file that people know: a temporary one means nothing to them, and is gone when they look."""
    named = str(error.filename2 or error.filename or path)
    return f"{path} (its temporary file)" if STAGING in Path(named).parts else named
