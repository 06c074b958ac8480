"""Notices that lines of the log were lost, which the log itself cannot report."""

import time
from collections.abc import Callable, Iterator

from flagstream.operate.health import Problem

SHOWN_SECONDS = 60.0
"""How long after the last lost line it counts as a problem."""
HINT = "the disk that it goes to is full, or nobody reads it: make room, or start its reader again"


class LostLines:
    """Follows ``count``, the number of lines lost so far. ``clock`` is monotonic. Used on the event loop."""

    def __init__(self, count: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._clock = clock
        self._before = 0
        self._began = 0
        self._lost_at: float | None = None

    def look(self) -> None:
        """The process calls this every second or so."""
        lost = self._count()
        if lost > self._before:
            if not self._recently:
                self._began = self._before
            self._before, self._lost_at = lost, self._clock()

    def problems(self) -> Iterator[Problem]:
        """Yield a problem if lines were lost in the last minute."""
        self.look()
        if self._recently:
            yield Problem("log_lines_lost", f"{self._before - self._began} lines of the log are lost; {HINT}")

    @property
    def _recently(self) -> bool:
        return self._lost_at is not None and self._clock() - self._lost_at <= SHOWN_SECONDS
