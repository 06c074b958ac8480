"""Where reading of a partition starts: at the committed offset, or else where the configuration says."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition

from flagstream.chunk import Partition, Position
from flagstream.errors import ExitCode, Fatal, OwnershipLost
from flagstream.kafka.commit_metadata import Committed, GroupStart, MetadataUnreadable
from flagstream.kafka.reports import Reports, raise_if_fatal
from flagstream.operate.retry import Backoff
from flagstream.units import Start

T = TypeVar("T")

QUERY_SECONDS = 5.0
"""Bound of one try of a blocking query (committed offsets, watermarks), which is repeated until it succeeds.
"""
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.2, 2.0
"""Seconds between tries of such a query."""
SHORTEST_QUERY_SECONDS = 0.2
"""Bound of the query for a partition whose turn comes when the time for all of them is up."""
UNKNOWN_END = 2**63 - 1
"""The end of a partition whose leader does not answer: no offset lies beyond it."""


class StartPositions:
    """Asks Kafka, in the consumer's thread, until it answers or ``stopping`` is set: then it raises
    OwnershipLost.

    ``alive`` is called with every try. ``epochs`` gives each position an epoch of its own. ``consumer`` is
    set before the first call.
    """

    consumer: Consumer

    def __init__(
        self,
        topic: str,
        start: Start,
        epochs: Iterator[int],
        reports: Reports,
        stopping: threading.Event,
        alive: Callable[[], None],
    ) -> None:
        self.group_start: GroupStart | None = None
        """When the group began, if it ever began at "latest": the earliest one found beside a committed
        offset. Every commit repeats it, whatever ``start`` is now; a commit without it would erase it.
        """
        self._topic = topic
        self._start = start
        self._epochs = epochs
        self._reports = reports
        self._stopping = stopping
        self._alive = alive

    def resolve(self, partitions: Sequence[Partition]) -> dict[Partition, Position]:
        """Return where to start each partition, in a new epoch. Afterwards :attr:`group_start` is known."""
        if not partitions:
            return {}
        wanted = [TopicPartition(p.topic, p.index) for p in partitions]
        positions = {}
        committed = self._committed(wanted)
        self._look_for_group_start(committed)
        if self._start == "latest" and (self.group_start is None or any(tp.offset < 0 for tp in committed)):
            self._ask_the_group(committed)
        deadline = time.monotonic() + QUERY_SECONDS
        for partition, tp in zip(partitions, committed, strict=True):
            metadata = tp.metadata or ""
            if tp.offset >= 0:
                low, high = self._watermarks_by(deadline, partition) or (0, UNKNOWN_END)
                known, offset = tp.offset, tp.offset
            else:
                low, high = self.watermarks(partition)
                known, offset = None, self._first(partition, low, high)
            positions[partition] = Position(next(self._epochs), offset, known, metadata, low, high)
        return positions

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        """Return ``(low, high)``: the partition holds the offsets ``[low, high)``."""
        wanted = TopicPartition(partition.topic, partition.index)
        low, high = self._query(
            lambda: self.consumer.get_watermark_offsets(wanted, timeout=QUERY_SECONDS, cached=False),
        )
        return int(low), int(high)

    def _watermarks_by(self, deadline: float, partition: Partition) -> tuple[int, int] | None:
        """Return None if Kafka does not answer in time: one leaderless partition must not block the others.

        If its committed offset was deleted, the first fetch reports that once a leader exists.
        """
        wanted = TopicPartition(partition.topic, partition.index)
        while not self._stopping.is_set():
            self._alive()
            timeout = max(SHORTEST_QUERY_SECONDS, deadline - time.monotonic())
            try:
                found: Any = self.consumer.get_watermark_offsets(wanted, timeout=timeout, cached=False)
            except KafkaException as error:
                raise_if_fatal(error.args[0])
                self._reports.error(error.args[0])
                found = None
            if found:
                return int(found[0]), int(found[1])
            if time.monotonic() > deadline:
                break
            self._stopping.wait(RETRY_SECONDS)
        return None

    def _committed(self, wanted: list[TopicPartition]) -> list[TopicPartition]:
        def ask() -> list[TopicPartition]:
            found = self.consumer.committed(wanted, timeout=QUERY_SECONDS)
            for tp in found:
                if tp.error is not None:
                    raise KafkaException(tp.error)
            return found

        return self._query(ask)

    def _first(self, partition: Partition, low: int, high: int) -> int:
        if self._start == "beginning":
            return low
        if isinstance(self._start, datetime):
            millis = max(0, int(self._start.timestamp() * 1000))  # -1 would ask for the end
        elif self.group_start is None or partition.index >= self.group_start.partitions:
            return low
        else:
            millis = self.group_start.at
        wanted = [TopicPartition(partition.topic, partition.index, millis)]
        found = self._query(lambda: self.consumer.offsets_for_times(wanted, timeout=QUERY_SECONDS))[0]
        return found.offset if found.offset >= 0 else high

    def _look_for_group_start(self, committed: Iterable[TopicPartition]) -> list[str]:
        """Keep the earliest group start. Returns why some metadata, which may hold one, cannot be read."""
        unreadable = []
        for tp in committed:
            try:
                found = Committed.parse(tp.metadata or "").group_start if tp.offset >= 0 else None
            except MetadataUnreadable as error:
                unreadable.append(str(error))
                continue
            if found is not None and (self.group_start is None or found < self.group_start):
                self.group_start = found
        return unreadable

    def _ask_the_group(self, committed: Sequence[TopicPartition]) -> None:
        """Look at all partitions of the topic for when the group began: that is what "latest" means for a
        partition without an offset.

        The first member to ask decides. So a partition that is added later, or first assigned later, starts
        where the group did, and not at a moment at which it already holds events. A group with offsets but
        without a start has forgotten it: it is older than this feature, or began under another ``start``.
        Then :attr:`group_start` stays None, and a partition without an offset is read from its beginning,
        because all that it holds may have come after the group began.
        """
        answer = self._query(lambda: self.consumer.list_topics(self._topic, timeout=QUERY_SECONDS))
        there = answer.topics[self._topic].partitions
        asked = {tp.partition for tp in committed}
        rest = [TopicPartition(self._topic, index) for index in there if index not in asked]
        every = [*committed, *(self._committed(rest) if rest else ())]
        unreadable = self._look_for_group_start(every)
        if unreadable and any(tp.offset < 0 for tp in committed):  # its start must not be taken for none
            raise Fatal(ExitCode.KAFKA, f"it cannot be found out when the group began: {unreadable[0]}")
        if self.group_start is None and all(tp.offset < 0 for tp in every):
            self.group_start = GroupStart(int(time.time() * 1000), len(there))

    def _query(self, function: Callable[[], T | None]) -> T:
        backoff = Backoff(RETRY_SECONDS, LONGEST_RETRY_SECONDS)
        while not self._stopping.is_set():
            self._alive()
            try:
                answer = function()
            except KafkaException as error:
                raise_if_fatal(error.args[0])
                self._reports.error(error.args[0])
            else:
                if answer is not None:
                    return answer
            self._stopping.wait(backoff.next_pause())
        raise OwnershipLost(f"{self._topic}: stopped while Kafka was asked for positions")
