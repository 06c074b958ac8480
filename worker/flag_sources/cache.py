"""The last good flags on disk, so that a worker can start while a source does not answer."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from worker.flag_sources.document import Document
from worker.flags import FlagFormat

VERSION = 1


class _Kept(msgspec.Struct):
    format: FlagFormat
    content: str


class _File(msgspec.Struct):
    v: int
    sources: dict[str, _Kept]


class FlagCache:
    """One file with the document of each source, by the source's name. Blocks; used by one thread at a
    time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Document]:
        """What was written last; nothing where there is no file yet. Raises OSError, and ValueError for what
        is no cache."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        file = msgspec.json.decode(content, type=_File)  # its errors are ValueErrors
        if file.v != VERSION:
            raise ValueError(f"version {file.v} is not known")
        return {name: Document(kept.content.encode(), kept.format) for name, kept in file.sources.items()}

    def write(self, documents: Mapping[str, Document]) -> None:
        """Replace the file, whole or not at all; readable by its owner only. Raises OSError."""
        kept = {name: _Kept(one.format, one.content.decode()) for name, one in documents.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(_File(VERSION, kept)))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            os.unlink(temporary)
            raise
