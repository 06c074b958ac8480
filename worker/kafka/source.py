"""The chunk source: a confluent consumer in a thread of its own, feeding chunks into a Faust channel.

This is its side on the event loop, which asks the thread (:mod:`worker.kafka.consumer`) for commits, rewinds
and the like.

Each partition has an **epoch**, new on every gain, loss and rewind. Kafka checks who commits, never what:
whether work still counts is ours to check, in the thread, in the same step in which the offset is committed,
where no rebalance can slip in between (design: "Epochs and commits").
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from faust.types import ChannelT
from mode import Service

from worker.chunk import Chunk, Partition, Position
from worker.kafka.consumer import POLL_SECONDS, ConsumerThread, Stage
from worker.kafka.offsets import Since
from worker.units import Start

T = TypeVar("T")

SILENT_SECONDS = 10.0
"""Without a poll, after which people are told."""


class ChunkSource(Service):
    """Consumes one topic in one group and puts its records, as chunks of one partition, into ``channel``.

    ``properties`` is the complete librdkafka configuration; ``start`` applies to partitions without a
    committed offset. ``fail`` is told an error that ends the process. ``session_timeout`` (seconds) bounds
    how old the last poll may be for :attr:`fresh`.
    """

    def __init__(
        self,
        name: str,
        *,
        properties: Mapping[str, Any],
        topic: str,
        channel: ChannelT[Chunk],
        stage: Stage,
        start: Start,
        session_timeout: float,
        fail: Callable[[BaseException], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.group = str(properties["group.id"])
        self._session_timeout = session_timeout
        self._thread = ConsumerThread(
            name,
            properties=properties,
            topic=topic,
            put=lambda chunk: channel.put(cast(Any, chunk)),  # declared for events, but takes any value
            stage=stage,
            start=start,
            session_timeout=session_timeout,
            fail=fail,
        )

    async def on_start(self) -> None:
        self._thread.start()

    async def on_stop(self) -> None:
        """Leave the group. The host drains the stage before; whatever is in flight now belongs to the next
        owner.
        """
        await asyncio.to_thread(self._thread.stop)

    @property
    def positions(self) -> Mapping[Partition, Position]:
        """The partitions that are held, where each was begun, and in which epoch."""
        return self._thread.positions

    @property
    def moved_at(self) -> float:
        """When the consumer's thread was last seen moving (monotonic seconds); now, while there is none."""
        return self._thread.alive_at if self._thread.running else time.monotonic()

    @property
    def since(self) -> Since | None:
        """When the group began, if ``start`` is "latest"; belongs into every commit's
        metadata.
        """
        return self._thread.since

    @property
    def fresh(self) -> bool:
        """Whether the group can not have given our partitions away for want of polls; no delivery starts
        otherwise.
        """
        return time.monotonic() - self._thread.polled_at < self._session_timeout

    @property
    def trouble(self) -> str:
        """What is wrong between us and Kafka; empty if nothing is known."""
        silent = time.monotonic() - self._thread.polled_at
        if not self._thread.reports.problem and self._thread.running and silent > SILENT_SECONDS:
            return f"the consumer has not polled for {silent:.0f} s; it waits for Kafka"
        return self._thread.reports.problem

    async def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the consumer's thread, between two polls or while a rebalance callback
        waits.
        """
        return await self._thread.calls.call(function)

    async def commit(self, partition: Partition, epoch: int, offset: int, metadata: str) -> None:
        """Commit ``offset`` with ``metadata`` if ``partition`` is still held in ``epoch``; returns when Kafka
        has it.

        Raises OwnershipLost; the caller drops its work for the partition, and whoever gets it reads what is
        committed.
        """
        while not await self.call(  # noqa: ASYNC110  # the answer is not ours to be told
            lambda: self._thread.commit(partition, epoch, offset, metadata)
        ):
            await asyncio.sleep(POLL_SECONDS)  # lets the thread poll, which serves the rebalance

    async def group_metadata(self, epochs: Mapping[Partition, int]) -> object:
        """The group's metadata for a transaction, taken in the same step in which ``epochs`` are seen to
        stand.

        Raises OwnershipLost if one of them does not.
        """
        return await self.call(lambda: self._thread.group_metadata(epochs))

    async def rewind(
        self, epochs: Mapping[Partition, int], to: int | None = None
    ) -> dict[Partition, Position]:
        """Start over at the committed offsets (or at ``to``) with new epochs; chunks of the old ones are
        void.

        Partitions no longer held in the epoch given are left out of the answer.
        """
        return await self.call(lambda: self._thread.rewind(epochs, to))

    async def pause(self, partition: Partition, epoch: int) -> None:
        """Fetch no more of ``partition``; chunks that are under way still arrive."""
        await self.call(lambda: self._thread.set_paused(partition, epoch, True))

    async def resume(self, partition: Partition, epoch: int) -> None:
        """Go on fetching a paused partition where its last chunk ended."""
        await self.call(lambda: self._thread.set_paused(partition, epoch, False))

    async def pause_all(self) -> None:
        """Fetch nothing more (the process is about to stop), but stay in the group."""
        self._thread.finishing = True
        await self.call(self._thread.throttle)
