"""Leaving the group and joining it again, after a commit whose outcome is not known."""

from collections.abc import Sequence
from dataclasses import dataclass

from flagstream.chunk import Partition
from flagstream.operate.retry import Backoff

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the group is joined again, from the second time in a row on."""


@dataclass(frozen=True, slots=True)
class Departure:
    """Why the group is left, which partitions were dropped for it, and the pause before it is joined
    again.
    """

    reason: str
    dropped: Sequence[Partition]
    pause: float


class Rejoining:
    """How often in a row the group was left and joined again (``count``), with no commit in between, and why
    the last time (``reason``).
    """

    def __init__(self) -> None:
        self.count = 0
        self.reason = ""
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._due: tuple[str, Sequence[Partition]] | None = None

    def plan(self, reason: str, dropped: Sequence[Partition]) -> None:
        """The group has to be left: ``dropped`` are held no longer."""
        self._due = reason, dropped

    def begin(self) -> Departure | None:
        """Return how to leave the group now; None if it does not have to be left.

        Each joining makes the group share out all partitions again, so a member whose commits always fail
        pauses.
        """
        if self._due is None:
            return None
        (self.reason, dropped), self._due = self._due, None
        self.count += 1
        pause = self._backoff.next_pause() if self.count > 1 else 0.0
        return Departure(self.reason, dropped, pause)

    def committed(self) -> None:
        """A commit has succeeded."""
        self.count = 0
        self._backoff.reset()
