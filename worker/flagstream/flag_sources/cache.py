"""The last good flags on disk, so that a worker can start while a source does not answer."""

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from flagstream.flag_sources.document import Document
from flagstream.flags import FlagFormat
from flagstream.text import decoded

VERSION = 1


class _Kept(msgspec.Struct):
    format: FlagFormat
    content: str


class _File(msgspec.Struct):
    v: int
    sources: dict[str, _Kept]


class FlagCache:
    """Keeps the document of each source in one file, by the source's name. Its methods block; one thread at a
    time uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Document]:
        """Return the documents that were written last; none if there is no file yet. Raises OSError, and
        ValueError for a file that is not a cache.
        """
        self._check()
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        file = msgspec.json.decode(content, type=_File)  # its errors are ValueErrors
        if file.v != VERSION:
            raise ValueError(f"version {file.v} is not known")
        return {name: Document(kept.content.encode(), kept.format) for name, kept in file.sources.items()}

    def _check(self) -> None:
        """Raise OSError if the path is there and not a file: a device would be replaced, a pipe would
        block.
        """
        if self.path.exists() and not self.path.is_file():
            raise OSError("is not a regular file")

    def write(self, documents: Mapping[str, Document]) -> None:
        """Replace the file, wholly or not at all. Only its owner can read it. Raises OSError, with a message
        that names the file and the call.
        """
        kept = {name: _Kept(one.format, decoded(one.content)) for name, one in documents.items()}
        call = "stat"
        temporary = None
        try:
            self._check()
            call = "mkdir"
            self.path.parent.mkdir(parents=True, exist_ok=True)
            call = "open"
            descriptor, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
            call = "write"
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(_File(VERSION, kept)))
                file.flush()
                call = "fsync"
                with _where_possible():
                    os.fsync(file.fileno())
            call = "rename"
            os.replace(temporary, self.path)
        except BaseException as error:
            if temporary is not None:
                os.unlink(temporary)
            if isinstance(error, OSError):
                raise OSError(f"{self.path}: {error.strerror or error} ({call})") from error
            raise


@contextmanager
def _where_possible() -> Iterator[None]:
    """Some file systems cannot sync (FUSE, 9p, CIFS). A cache that a power cut took is written again."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}:
            raise
