"""Sources that were asked for their flags and have not answered yet."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

HANGS_SECONDS = 30.0
"""Seconds after which a source without an answer is reported. Requests have their own time-outs; a file on a
file system whose server is away has none.
"""


class Unanswered:
    """Sources are asked in threads; the event loop looks who does not answer. ``clock`` gives monotonic
    seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}
        self._reported: set[str] = set()

    def ask(self, name: str, question: Callable[[], T]) -> T:
        """Return the answer of the source ``name`` to ``question``. It is called in a thread."""
        self._since[name] = self._clock()
        try:
            return question()
        finally:
            del self._since[name]

    def hanging(self) -> dict[str, float]:
        """Return the seconds that each source has been silent, for those silent for HANGS_SECONDS."""
        waited = {name: self._clock() - since for name, since in self._since.copy().items()}
        return {name: seconds for name, seconds in waited.items() if seconds >= HANGS_SECONDS}

    def newly_hanging(self) -> set[str]:
        """Return the sources that hang now and did not at the last call."""
        hanging = set(self.hanging())
        new = hanging - self._reported
        self._reported = hanging
        return new
