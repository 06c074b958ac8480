"""Flags from a local file, for instance a mounted ConfigMap."""

import os
from pathlib import Path

from worker.flag_sources.document import FORMATS, Document
from worker.flags import FlagFormat


class FilePlace:
    """A `Place` on one file, which may be replaced, rewritten in place, or go and come back.

    The suffix tells the format where ``format`` does not.
    """

    def __init__(self, path: Path, format: FlagFormat | None = None) -> None:
        self._path = path
        self._format = format or FORMATS.get(path.suffix.lower(), "yaml")
        self._stamp: tuple[int, int, int] | None = None

    def fetch(self, *, anew: bool) -> Document | None:
        stamp, self._stamp = self._stamp, None  # a failure is looked at again
        try:
            with self._path.open("rb") as file:
                # Taken before the content: a write in between makes another stamp, and the next poll sees it.
                status = os.fstat(file.fileno())
                now = (status.st_mtime_ns, status.st_size, status.st_ino)
                content = file.read() if anew or now != stamp else None
        except OSError as error:
            raise OSError(f"{self._path.absolute()}: {error.strerror or error}") from error
        self._stamp = now
        return None if content is None else Document(content, self._format)
