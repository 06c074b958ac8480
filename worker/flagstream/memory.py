"""What a stage may hold of records that wait between fetch and delivery, and how much it holds now, in bytes.

Records are weighed, not counted: 10,000 of them are 2 MB or 2 GB. Each stage has a share of the memory budget
to itself, so one that cannot get rid of its records takes nothing from the others.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from flagstream.units import MIB

RECORD_OVERHEAD = 400
"""Bytes that a fetched record takes beside its value: the message, its key, the name of its topic."""


@dataclass(frozen=True, slots=True)
class MemoryShare:
    """How the share of a stage is divided, in bytes.

    The parts have upper bounds: beyond them more memory makes nothing faster. *Measured*: a worker at full
    speed has 10 to 20 MB of small events on their way.
    """

    total: int = 128 * MIB

    @property
    def queued(self) -> int:
        """What librdkafka may hold before it stops fetching: 200 ms of small events at full speed."""
        return _within(self.total // 8, 64 * 1024, 16 * MIB)

    @property
    def response(self) -> int:
        """What brokers may answer to one fetch. Compressed: librdkafka unpacks a whole answer before it looks
        at what it holds, so this has to be far smaller than that. One batch comes, whatever its size.

        A smaller one makes shorter chunks, which cost more an event: *measured* 6 % at half of it.
        """
        return _within(self.total // 256, 64 * 1024, MIB)

    @property
    def taken(self) -> int:
        """What may wait after it was taken from librdkafka: in chunks, in the channel, in the stage."""
        return _within(self.total // 4, 64 * 1024, 64 * MIB)

    @property
    def chunk(self) -> int:
        """What is taken at a time, and the most that a chunk holds unless it is a single record."""
        return min(self.taken // 4, 8 * MIB)

    @property
    def pipeline(self) -> int:
        """What may wait, as part of what is taken, while a transaction is committed: 100 ms at full speed."""
        return min(self.taken // 2, 18 * MIB)

    @property
    def produced(self) -> int:
        """What a producer may hold of records that brokers have not acknowledged."""
        return _within(self.total // 2, MIB, 128 * MIB)


def _within(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))


class Account:
    """The bytes that wait, taken from librdkafka by one source and not let go of yet.

    Charged and released in any thread, by :class:`Weight`, which calls ``released`` with the bytes of each
    release. :attr:`waiting`, :attr:`full` and :attr:`missing` belong to the source's own thread. ``beside``:
    bytes that the stage holds in another form (windows), which leave less room for records, down to one
    chunk.
    """

    def __init__(
        self,
        share: MemoryShare,
        *,
        beside: Callable[[], int] = lambda: 0,
        released: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.waiting = 0
        self._share = share
        self._beside = beside
        self._released = released
        # Weights are released wherever the last reference goes, also in the midst of an addition here. To
        # append is one step, whoever interrupts it, and only one thread adds up.
        self._changes: deque[int] = deque()

    def settle(self) -> int:
        """Add up what has happened; returns the bytes that wait."""
        while self._changes:
            self.waiting += self._changes.popleft()
        return self.waiting

    @property
    def full(self) -> bool:
        """Whether no more should be taken. What is larger than the whole is taken when nothing waits."""
        return self.missing > 0

    @property
    def missing(self) -> int:
        """The bytes that have to be released before more may be taken; 0 or less if there is room."""
        share = self._share
        room = max(share.chunk, min(share.taken, share.total - self._beside()))
        return self.settle() - room + 1

    def change(self, count: int) -> None:
        """Count ``count`` more bytes (fewer, if negative)."""
        self._changes.append(count)
        if count < 0:
            self._released(-count)


class Weight:
    """What one chunk, or what it became, is charged to an account; released when nobody holds it any more.

    A stage lets go of chunks in many ways: it drops what belongs to an earlier tenure, clears a queue, is
    cancelled. What is forgotten by all is in memory no longer, so the account need not be told.
    """

    __slots__ = ("_account", "bytes")

    def __init__(self, account: Account | None = None, count: int = 0) -> None:
        self._account = account
        self.bytes = 0
        self.become(count)

    def become(self, count: int) -> None:
        """Weigh ``count`` bytes from now on."""
        change, self.bytes = count - self.bytes, count
        if change and self._account is not None:
            self._account.change(change)

    def release(self) -> None:
        """Weigh nothing: what was charged is done with, though somebody may still hold it."""
        self.become(0)

    def __del__(self) -> None:
        self.release()
