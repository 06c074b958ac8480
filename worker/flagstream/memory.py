"""How many bytes of records a stage may hold between fetch and delivery, and how many it holds now.

Bytes count, not records: 10,000 records are 2 MB or 2 GB. Each stage has its own share of the memory budget,
so a stage that cannot deliver its records takes nothing from the others.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from flagstream.units import MIB

RECORD_OVERHEAD = 400
"""Bytes that a fetched record takes besides its value: the message, its key, the name of its topic."""


@dataclass(frozen=True, slots=True)
class MemoryShare:
    """The parts of a stage's share, in bytes.

    The parts have upper bounds: beyond them, more memory makes nothing faster. *Measured*: a worker at full
    speed has 10 to 20 MB of small events on their way.
    """

    total: int = 128 * MIB

    @property
    def queued(self) -> int:
        """Bytes that librdkafka may hold before it stops fetching: 200 ms of small events at full speed."""
        return _within(self.total // 8, 64 * 1024, 16 * MIB)

    @property
    def response(self) -> int:
        """Bytes that brokers may answer to one fetch, compressed. librdkafka unpacks a whole answer before it
        looks at what it holds, so this has to be far smaller than that. A single batch comes, whatever its
        size.

        A smaller answer makes shorter chunks, which cost more an event: *measured* 6 % at half the size.
        """
        return _within(self.total // 256, 64 * 1024, MIB)

    @property
    def taken(self) -> int:
        """Bytes that may wait after they were taken from librdkafka: in chunks, in the channel, in the
        stage.
        """
        return _within(self.total // 4, 64 * 1024, 64 * MIB)

    @property
    def chunk(self) -> int:
        """Bytes that are taken at a time, and the most that a chunk holds unless it is a single record."""
        return min(self.taken // 4, 8 * MIB)

    @property
    def pipeline(self) -> int:
        """Bytes of those that may wait while a transaction is committed: 100 ms at full speed."""
        return min(self.taken // 2, 18 * MIB)

    @property
    def produced(self) -> int:
        """Bytes that a producer may hold of records that brokers have not acknowledged."""
        return _within(self.total // 2, MIB, 128 * MIB)


def _within(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))


class Account:
    """The bytes that wait: one source has taken them from librdkafka, and they are not released yet.

    :class:`Weight` charges and releases them in any thread, and calls ``released`` with the bytes of each
    release. :attr:`waiting`, :attr:`full` and :attr:`missing` belong to the source's own thread. ``beside``:
    bytes that the stage holds in another form (windows). They leave less room for records, down to one chunk.
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
        """Add up all charges and releases; return the bytes that wait."""
        while self._changes:
            self.waiting += self._changes.popleft()
        return self.waiting

    @property
    def full(self) -> bool:
        """Whether no more should be taken. A record that is larger than the whole is taken when nothing
        waits.
        """
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
    """The charge of one chunk, or of its remains, in an account. It is released when nobody holds it any
    more.

    A stage releases chunks in many ways: it drops those of an earlier tenure, clears a queue, is cancelled. A
    chunk that nobody refers to is no longer in memory, so its charge is released without a call.
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
        """Weigh nothing: the stage has finished with the chunk, although somebody may still hold it."""
        self.become(0)

    def __del__(self) -> None:
        self.release()
