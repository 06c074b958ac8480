"""How far a stage is with each partition that it holds: what is committed, what waits, and for how long.

The consumer's thread reports what it reads and commits, the host where the brokers say that partitions end
(:mod:`flagstream.kafka.ends`), and librdkafka's statistics how far it has looked. A figure that is not known
is NaN, never an old one.

Offsets of a transactional topic count its markers too, and after the last record there may be nothing but
markers. So where librdkafka has looked at everything and found no more records, the last record that was read
is the end.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from flagstream.chunk import Partition, Position
from flagstream.kafka.ends import Ends
from flagstream.kafka.open_transactions import Blocked, OpenTransactions
from flagstream.operate import metrics

KNOWN_SECONDS = 15.0
"""How long an answer of the brokers counts. They are asked every five seconds."""
SAMPLES = 2
"""The least number of looks in a row that must have seen a larger lag than the look before them."""
LATE_SECONDS = 3.0
"""Seconds that a delivery may take on top of the cycle before it counts as late."""
FARTHEST = 2**62
"""No offset lies there. A position that was begun without an answer of the broker has such an end."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one partition, in records and seconds; NaN where not known.

    ``lag``: records not yet committed. ``lag_high``: the same, with those of open transactions. ``behind``:
    age of the oldest record that is not committed. ``since_delivery``: seconds since records were last
    committed, or since the partition was assigned. ``margin``: records that retention can delete before it
    deletes one that is not committed.
    """

    lag: float
    lag_high: float
    behind: float
    since_delivery: float
    margin: float


@dataclass(slots=True)
class _Held:
    committed: int
    delivered_at: float
    read: int
    looked: int = 0
    """librdkafka has looked at everything before this offset, and has handed over all records there."""
    unread_since: float | None = None
    """When a lag was first seen of which nothing is read yet."""
    ends: Ends | None = None
    asked_at: float = -math.inf
    history: deque[tuple[float, float]] = field(default_factory=deque)
    """When the lag was looked at, and what it was."""
    waiting: deque[tuple[int, float, float]] = field(default_factory=deque)
    """Chunks that are read and not committed: the end, the time of the first record, and when it came."""


class Progress:
    """Measures the progress of the source ``name`` with ``topic``. ``clock`` is monotonic, ``now`` the time
    of day, in seconds. All methods may be called from any thread.
    """

    def __init__(
        self,
        name: str,
        topic: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._topic = topic
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._held: dict[Partition, _Held] = {}
        self._open = OpenTransactions(clock, now)
        self.cycle = 60.0
        """Seconds after which records that were read are normally committed: how long a window stays open."""

    def begin(self, partition: Partition, position: Position) -> None:
        """The partition is held from ``position`` on, or starts again there."""
        committed = position.offset if position.committed is None else position.committed
        with self._lock:
            before = self._held.get(partition)
            held = _Held(committed, before.delivered_at if before else self._clock(), position.offset)
            if before is not None:
                held.ends, held.asked_at = before.ends, before.asked_at
            elif position.high < FARTHEST:
                held.ends, held.asked_at = Ends(position.low, position.high, position.high), self._clock()
            self._held[partition] = held

    def end(self, partition: Partition) -> None:
        """The partition is held no longer."""
        labels = (self._name, self._topic, str(partition.index))
        with self._lock:
            self._held.pop(partition, None)
            self._open.forget(partition)
            for gauge in metrics.OF_A_PARTITION:
                with suppress(KeyError):  # was never shown
                    gauge.remove(*labels)

    def read(self, partition: Partition, end: int, timestamp: float) -> None:
        """A chunk up to ``end`` was read. Its first record has the time ``timestamp`` (seconds)."""
        with self._lock:
            if (held := self._held.get(partition)) is not None:
                held.read = end
                held.waiting.append((end, timestamp, self._clock()))

    def begin_again(self, partition: Partition, offset: int) -> None:
        """Records from ``offset`` on were given back, and are read again."""
        with self._lock:
            if (held := self._held.get(partition)) is not None:
                held.read = held.looked = offset
                while held.waiting and held.waiting[-1][0] > offset:
                    held.waiting.pop()

    def looked(self, partition: Partition, offset: int) -> None:
        """All records before ``offset`` were read, or are about to be."""
        with self._lock:
            if (held := self._held.get(partition)) is not None:
                held.looked = offset

    def committed(self, partition: Partition, offset: int) -> None:
        """``offset`` was committed. With a plan beside it, it may be the same as before."""
        with self._lock:
            held = self._held.get(partition)
            if held is None or offset <= held.committed:
                return
            held.committed, held.delivered_at = offset, self._clock()
            while held.waiting and held.waiting[0][0] <= offset:
                held.waiting.popleft()

    def measured(self, found: Mapping[Partition, Ends]) -> None:
        """The brokers have reported where partitions end."""
        with self._lock:
            for partition, ends in found.items():
                if (held := self._held.get(partition)) is not None:
                    held.ends, held.asked_at = ends, self._clock()
                    reached = max(held.read, held.looked) >= ends.stable
                    self._open.measured(partition, ends, reached=reached)
                    self._remember(held)

    def blocked(self) -> Sequence[Blocked]:
        """Return the partitions whose next records wait for the end of an open transaction."""
        with self._lock:
            return list(self._open.blocked())

    def figures(self) -> Mapping[Partition, Figures]:
        """Return what is known now of each partition that is held."""
        with self._lock:
            return {partition: self._figures(held) for partition, held in self._held.items()}

    def show(self, under_way: Mapping[Partition, float]) -> None:
        """Set the metrics. ``under_way``: for how many seconds a delivery of each partition has been going
        on.
        """
        with self._lock:  # otherwise a partition that ends meanwhile would leave its series
            for partition, held in self._held.items():
                figures = self._figures(held)
                labels = (self._name, self._topic, str(partition.index))
                metrics.LAG.labels(*labels).set(figures.lag)
                metrics.LAG_HIGH.labels(*labels).set(figures.lag_high)
                metrics.BEHIND.labels(*labels).set(figures.behind)
                metrics.SINCE_DELIVERY.labels(*labels).set(figures.since_delivery)
                metrics.MARGIN.labels(*labels).set(figures.margin)
                metrics.UNDER_WAY.labels(*labels).set(under_way.get(partition, 0.0))

    def growing(self) -> tuple[float, float] | None:
        """Return how many records wait, and for how many seconds the oldest has waited, in the partitions in
        which more comes in than is committed: there the smallest lag during a whole ``cycle`` is larger than
        the lag before it. Returns None if there is no such partition.
        """
        with self._lock:
            found = [
                self._figures(held)
                for held in self._held.values()
                if len(held.history) > SAMPLES
                and min(lag for _, lag in list(held.history)[1:]) > held.history[0][1]
            ]
        late = [figures for figures in found if figures.behind > self.cycle + LATE_SECONDS]
        if not late:
            return None
        return sum(figures.lag for figures in late), max(figures.behind for figures in late)

    def _remember(self, held: _Held) -> None:
        at = self._clock()
        held.history.append((at, self._figures(held).lag))
        while len(held.history) > SAMPLES + 1 and held.history[1][0] < at - self.cycle - LATE_SECONDS:
            held.history.popleft()

    def _figures(self, held: _Held) -> Figures:
        at = self._clock()
        since_delivery = at - held.delivered_at
        ends = held.ends
        if ends is None or at - held.asked_at > KNOWN_SECONDS:
            behind = self._age(held, at) if held.waiting else math.nan
            return Figures(math.nan, math.nan, behind, since_delivery, math.nan)
        stable, high = (
            held.read if held.looked >= end else max(end, held.read) for end in (ends.stable, ends.high)
        )
        lag = max(0, stable - held.committed)
        if lag == 0:
            held.unread_since = None
            behind = 0.0
        elif held.waiting:
            held.unread_since = None
            behind = self._age(held, at)
        else:
            held.unread_since = at if held.unread_since is None else held.unread_since
            behind = at - held.unread_since
        margin = max(0, held.committed - ends.low)
        return Figures(lag, max(lag, high - held.committed), behind, since_delivery, margin)

    def _age(self, held: _Held, at: float) -> float:
        """Where the producer's clock is ahead, a record is at least as old as its arrival."""
        _, timestamp, arrived = held.waiting[0]
        return max(self._now() - timestamp, at - arrived)


def partitions_of(progresses: Iterable[Progress]) -> Iterator[Partition]:
    """Yield every partition that one of the sources holds."""
    for progress in progresses:
        yield from progress.figures()
