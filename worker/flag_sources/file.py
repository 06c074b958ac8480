"""Flags from a local file, for instance a mounted ConfigMap."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from worker.flags import FlagFileError, FlagFormat, FlagSet, parse_flags

FORMATS: Final[dict[str, FlagFormat]] = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}
"""Formats by the suffix of the file's name; any other name is YAML, GO Feature Flag's default."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class FileFlagSource:
    """A `FlagSource` on one file, which may be replaced, rewritten in place, or go and come back.

    The suffix tells the format where `format` does not. `clock` gives the time, with its zone.
    Scheduled steps come due also while the file is missing or broken, in the flags last read from it.
    """

    def __init__(
        self, path: Path, format: FlagFormat | None = None, clock: Callable[[], datetime] = _utc_now
    ) -> None:
        self._path = path
        self._format = format or FORMATS.get(path.suffix.lower(), "yaml")
        self._clock = clock
        self._stamp: tuple[int, int, int] | None = None
        self._content: bytes | None = None  # what was read last
        self._problem: str | None = None  # what was wrong with it, if that has been said
        self._good: bytes | None = None  # the last content that was flags
        self._next_change: datetime | None = None

    def load(self) -> FlagSet:
        self._stamp = self._content = None
        try:
            return self._parse(self._read() or b"")
        except (OSError, FlagFileError) as error:
            self._problem = str(error)
            raise

    def poll(self) -> FlagSet | None:
        try:
            content = self._read()
            if content is not None:
                return self._parse(content)
        except (OSError, FlagFileError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                raise
        if self._good is not None and self._next_change and self._next_change <= self._clock():
            return self._build(self._good)
        return None

    def _read(self) -> bytes | None:
        """What the file holds; None if that was looked at already."""
        try:
            with self._path.open("rb") as file:
                # Taken before the content: a write in between makes another stamp, and the next poll sees it.
                status = os.fstat(file.fileno())
                stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                if stamp == self._stamp:
                    return None
                content = file.read()
        except OSError:
            self._stamp = None
            raise
        as_before = content == self._content and self._problem is None
        self._stamp, self._content = stamp, content
        return None if as_before else content

    def _parse(self, content: bytes) -> FlagSet:
        try:
            flags = self._build(content)
        except FlagFileError as error:
            raise FlagFileError(f"{self._path}: {error}") from error
        self._good, self._problem = content, None
        return flags

    def _build(self, content: bytes) -> FlagSet:
        flags = parse_flags(content, self._format, self._clock())
        self._next_change = flags.next_change
        return flags
