"""Reads flags from a local file, for instance a mounted ConfigMap."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from flagstream.flag_sources.document import Document, format_of
from flagstream.flags import FlagFormat

SETTLED_SECONDS: Final = 2.0
"""A file whose last change is younger may be half written: editors, copies and templates write in pieces, and
a flag file that is cut short is often still readable, with flags missing."""
LOOKS: Final = 8
"""How often a file that changes all the time is looked at before that is a failure; the next poll looks
again.
"""

Stamp = tuple[int, int, int]
"""Time of the last change (nanoseconds), size and inode."""


class _Look(NamedTuple):
    stamp: Stamp
    content: bytes
    steady: bool
    """Return whether nothing changed while the file was read."""


class FileLocation:
    """A `FlagLocation` on one file, which may be replaced, rewritten in place, or go and come back.

    If ``format`` is not set, the suffix decides. A file whose last change is younger than ``SETTLED_SECONDS``
    is looked at again until two looks agree. ``clock`` gives seconds since 1970, as the file system does.
    """

    def __init__(
        self,
        path: Path,
        format: FlagFormat | None = None,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path
        self._format = format_of(format, None, path.name)
        self._clock = clock
        self._sleep = sleep
        self._stamp: Stamp | None = None

    def fetch(self, *, unconditional: bool) -> Document | None:
        stamp, self._stamp = self._stamp, None  # a failure is looked at again
        try:
            found = self._settled(None if unconditional else stamp)
        except OSError as error:
            raise OSError(f"{self._path.absolute()}: {error.strerror or error}") from error
        if found is None:
            self._stamp = stamp
            return None
        self._stamp = found.stamp
        return Document(found.content, *self._format)

    def _settled(self, known: Stamp | None) -> _Look | None:
        """Return the file after nobody writes it any more; None if it is the ``known`` one."""
        look = self._look(known)
        for _ in range(LOOKS):
            if look is None:
                return None
            age = self._clock() - look.stamp[0] / 1e9
            if look.steady and age >= SETTLED_SECONDS:
                return look
            # A file system with another clock may date it in the future.
            self._sleep(min(max(SETTLED_SECONDS - age, SETTLED_SECONDS / 4), SETTLED_SECONDS))
            before, look = look, self._look(None)
            if look == before and look.steady:
                return look
        raise OSError("it is being written: it changes at every look; replace it by renaming another file")

    def _look(self, known: Stamp | None) -> _Look | None:
        # Without O_NONBLOCK a pipe that nobody writes to would be waited for.
        with open(self._path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError("is not a regular file")
            stamp = _stamp(status)
            if stamp == known:
                return None
            content = file.read()
            return _Look(stamp, content, stamp == _stamp(os.fstat(file.fileno())))


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino
