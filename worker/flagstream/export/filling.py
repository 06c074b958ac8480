"""The windows of one partition, from the inbox to the queue of closed windows. Synchronous, no I/O."""

from collections import deque

import structlog

from flagstream.export.budget import WINDOW_OVERHEAD, Tenant
from flagstream.export.commits import PartitionCommits
from flagstream.export.cutter import Cutter
from flagstream.export.destination import Destination
from flagstream.export.inbox import Inbox
from flagstream.export.windows import ClosedWindow

log = structlog.get_logger(__name__)

QUEUE = 2
"""Closed windows of a partition: one is delivered, one waits; meanwhile the next one fills."""


class Filling:
    """Holds the inbox, the open window and the closed ones, and moves records from one to the next as far as
    there is place and memory. ``owner`` stands in the memory budget for all of them.
    """

    def __init__(self, to: Destination, commits: PartitionCommits, owner: Tenant) -> None:
        self.inbox = Inbox(commits.tenure)
        self.cutter: Cutter | None = None
        """Given when the partition was taken over; nothing is cut before."""
        self.queue: deque[ClosedWindow] = deque()
        """Closed windows. The first one is being delivered."""
        self.over = False
        """Whether everything was given back, for good."""
        self._to = to
        self._commits = commits
        self._owner = owner
        to.budget.enter(owner)

    @property
    def deadline(self) -> float | None:
        """When :meth:`step` has something to do though nothing has happened."""
        return self.cutter.deadline if self.cutter is not None and self._has_place else None

    @property
    def joins(self) -> bool:
        """Whether the first chunk that waits starts where the windows end."""
        return not self.inbox or self.cutter is None or self.inbox.first().start == self.cutter.next

    @property
    def empty(self) -> bool:
        """Whether nothing waits and nothing can be closed. A window that repeats a plan may be half full."""
        return not (self.queue or self.inbox or (self.cutter is not None and self.cutter.closable))

    @property
    def closable(self) -> int:
        """See :class:`flagstream.export.budget.Tenant`: only what could be delivered right away helps."""
        if self.cutter is None or self.cutter.open is None or not self.cutter.closable or self.queue:
            return 0
        return self.cutter.open.memory + WINDOW_OVERHEAD

    @property
    def following(self) -> ClosedWindow | None:
        """The window after the one that is delivered, if its plan travels with the next commit."""
        waits = self.queue[1] if len(self.queue) > 1 else None
        return waits if waits is not None and self._to.route.announces(waits) else None

    def step(self, now: float, early: str | None) -> bool:
        """Close the open window or take a slice of a chunk. Return False if neither is possible now.

        ``early`` is why a window that is not full is closed after all that waits was taken. Raises what
        :meth:`Cutter.take` raises.
        """
        if self.cutter is None:
            return False
        if self._has_place and (reason := self.cutter.due(now)):
            self.close(reason)
        elif self.inbox and self.has_room():
            self.inbox.taken(self.cutter.take(self.inbox.first(), now), self.cutter.next)
            self.charge()
        elif self._has_place and self.cutter.closable and (reason := self._early(self.cutter, early)):
            self.close(reason)
            self.cutter.asked = None
        else:
            self.cutter.asked = None
            return False
        return True

    def _early(self, cutter: Cutter, early: str | None) -> str | None:
        return cutter.asked or (early if not self.inbox else None)

    @property
    def _has_place(self) -> bool:
        return len(self.queue) < QUEUE

    def has_room(self) -> bool:
        """Return whether the next slice may be taken. If memory is short, the largest window is closed."""
        cutter, budget = self.cutter, self._to.budget
        if cutter is None or (cutter.open is not None and cutter.open.full_by):
            return False
        if cutter.repeats:
            return True  # repeating a plan comes first and above the budget
        budget.relieve()
        if self.over:  # by an error in closing the open window
            return False
        return not budget.full or (cutter.open is None and not self.queue)

    def close(self, reason: str) -> None:
        """Close the open window."""
        assert self.cutter is not None
        closed = self.cutter.close(reason, self._commits.topic_id)
        self.queue.append(closed)
        self.charge()
        log.debug(
            "window_closed",
            sink=self._to.name,
            partition=str(closed.range.partition),
            range=str(closed.range),
            events=closed.events,
            bytes=closed.size,
            by=reason,
        )

    def exported(self) -> None:
        """Remove the first closed window, whose end is committed."""
        self.queue.popleft()
        self.charge()

    def charge(self) -> None:
        """Report to the budget what the windows take."""
        held = sum(closed.bytes + WINDOW_OVERHEAD for closed in self.queue)
        if self.cutter is not None and self.cutter.open is not None:
            held += self.cutter.open.memory + WINDOW_OVERHEAD
        self._to.budget.hold(self._owner, held)

    def forget_open(self) -> None:
        """Forget what is in no closed window."""
        self.inbox.clear()
        if self.cutter is not None:
            self.cutter.forget()
        self.charge()

    def forget_all(self) -> None:
        """Forget everything, for good."""
        self.over = True
        self.queue.clear()
        self.forget_open()
        self._to.budget.leave(self._owner)
