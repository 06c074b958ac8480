"""Transactions of other producers that stay open: until they end, Kafka hides all records from them on."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from flagstream.chunk import Partition
from flagstream.kafka.ends import Ends

OPEN_SECONDS = 6.0
"""How long records have to wait before that is a problem: far longer than a transaction of a worker takes.
The brokers are asked every five seconds.
"""


@dataclass(frozen=True, slots=True)
class Blocked:
    """``records`` of a partition (with markers) lie from the offset ``stable`` on, where an open transaction
    began.

    ``since`` is the time of day (UTC) at which they were first seen to wait there.
    """

    partition: Partition
    records: int
    stable: int
    since: str

    @property
    def problem(self) -> str:
        """A text for people, with what to do."""
        return (
            f"{self.records} records wait behind an open transaction of {self.partition} since {self.since} "
            f"(at offset {self.stable}): readers get them when its producer ends it, or its time-out does; "
            "kafka-transactions.sh find-hanging and abort end one that Kafka has forgotten"
        )


@dataclass(slots=True)
class _Seen:
    stable: int
    high: int
    at: float
    since: str


class OpenTransactions:
    """Watches the partitions of one topic. ``clock`` is monotonic, ``now`` the time of day, in seconds."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._now = now
        self._seen: dict[Partition, _Seen] = {}

    def measured(self, partition: Partition, ends: Ends, *, reached: bool) -> None:
        """The brokers have reported where the partition ends. ``reached``: all that they show is read."""
        if not reached or ends.high <= ends.stable:
            self._seen.pop(partition, None)
            return
        before = self._seen.get(partition)
        if before is not None and before.stable == ends.stable:
            before.high = ends.high
            return
        since = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="seconds")
        self._seen[partition] = _Seen(ends.stable, ends.high, self._clock(), since)

    def forget(self, partition: Partition) -> None:
        """The partition is held no longer."""
        self._seen.pop(partition, None)

    def blocked(self) -> Iterator[Blocked]:
        """Yield the partitions whose records wait."""
        for partition, seen in self._seen.items():
            if self._clock() - seen.at >= OPEN_SECONDS:
                yield Blocked(partition, seen.high - seen.stable, seen.stable, seen.since)
