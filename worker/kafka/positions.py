"""Where reading of a partition starts: the committed offset, else what the configuration says."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition

from worker.chunk import Partition, Position
from worker.errors import ExitCode, Fatal, OwnershipLost
from worker.kafka.offsets import Committed, MetadataUnreadable, Since
from worker.kafka.reports import Reports, raise_if_fatal
from worker.units import Start

T = TypeVar("T")

QUERY_SECONDS = 5.0
"""Bound of one try of a blocking query (committed offsets, watermarks); tried again until it answers."""
RETRY_SECONDS = 0.2
"""Between tries of such a query."""


SHORTEST_QUERY_SECONDS = 0.2
"""Of a partition that is asked when the time of all is up."""
UNKNOWN_END = 2**63 - 1
"""Of a partition that cannot be asked: nothing lies beyond it."""


class StartingPoints:
    """Asks Kafka until it answers, in the consumer's thread. Raises OwnershipLost when ``stopping`` is set
    before. ``alive`` is called with every try; ``epochs`` gives each position an epoch of its own.
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
        self.since: Since | None = None
        """When the group began, if ``start`` is "latest"."""
        self._topic = topic
        self._start = start
        self._epochs = epochs
        self._reports = reports
        self._stopping = stopping
        self._alive = alive

    def resolve(self, partitions: Sequence[Partition]) -> dict[Partition, Position]:
        """Where to start with each, in a new epoch."""
        if not partitions:
            return {}
        wanted = [TopicPartition(p.topic, p.index) for p in partitions]
        positions = {}
        committed = self._committed(wanted)
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
        """The topic holds the offsets ``[low, high)``."""
        wanted = TopicPartition(partition.topic, partition.index)
        low, high = self._query(
            lambda: self.consumer.get_watermark_offsets(wanted, timeout=QUERY_SECONDS, cached=False),
        )
        return int(low), int(high)

    def _watermarks_by(self, deadline: float, partition: Partition) -> tuple[int, int] | None:
        """None if Kafka does not tell: a partition that has no leader must not keep all others waiting. That
        its committed offset is no longer there is told by the fetch, once there is a leader.
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
            millis = int(self._start.timestamp() * 1000)
        else:
            began = self._group_start()
            if partition.index >= began.partitions:
                return low
            millis = began.at
        wanted = [TopicPartition(partition.topic, partition.index, millis)]
        found = self._query(lambda: self.consumer.offsets_for_times(wanted, timeout=QUERY_SECONDS))[0]
        return found.offset if found.offset >= 0 else high

    def _group_start(self) -> Since:
        """When the group began: what "latest" means for a partition without an offset.

        The first member to ask decides; all commits carry the time on (:attr:`since`). So a partition that is
        added later, or first assigned later, starts where the group did and not at a moment at which it holds
        events already.
        """
        if self.since is None:
            topic = self._query(lambda: self.consumer.list_topics(self._topic, timeout=QUERY_SECONDS))
            every = [TopicPartition(self._topic, index) for index in topic.topics[self._topic].partitions]
            committed = self._committed(every)
            known = [since for tp in committed if tp.offset >= 0 and (since := _since(tp.metadata or ""))]
            now = Since(int(time.time() * 1000), len(every))
            self.since = min(known, key=lambda since: since.at, default=now)
        return self.since

    def _query(self, function: Callable[[], T | None]) -> T:
        while not self._stopping.is_set():
            self._alive()
            try:
                answer = function()
            except KafkaException as error:
                raise_if_fatal(error.args[0])
                self._reports.error(error.args[0])
                self._stopping.wait(RETRY_SECONDS)
            else:
                if answer is not None:
                    return answer
        raise OwnershipLost(f"{self._topic}: stopped while Kafka was asked for positions")


def _since(metadata: str) -> Since | None:
    try:
        return Committed.parse(metadata).since
    except MetadataUnreadable as error:  # which must not be taken for a group that has just begun
        raise Fatal(ExitCode.KAFKA, f"when the group began is not to be found out: {error}") from None
