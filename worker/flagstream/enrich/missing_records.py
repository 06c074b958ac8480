"""What the enrich stage does when the topic does not hold the records that come next."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from flagstream.chunk import Partition, Position
from flagstream.config.settings import EnrichSettings
from flagstream.enrich.ingest_topic import IngestTopic
from flagstream.enrich.partitions import HeldPartitions
from flagstream.errors import OwnershipLost
from flagstream.kafka.gaps import describe_gap
from flagstream.kafka.tenure import Tenure
from flagstream.kafka.topic_id import differ
from flagstream.operate.tasks import Tasks

log = structlog.get_logger(__name__)

OFFSET_LOOKS, OFFSET_SECONDS = 10, 0.5
"""How often, and with which pause, to see whether Kafka has deleted the offsets of a deleted topic."""
CATCH_UP_SECONDS = 0.02
"""Between looks at whether everything that was read of a partition is produced."""


class MissingRecords:
    """Decides whether the topic was created again or records were deleted, and goes on or stops there.

    ``flush`` commits the open transaction, and returns when it has ended. Nothing that waits for Kafka is
    awaited by the caller, which is the consumer's thread: it has to go on polling.
    """

    def __init__(
        self,
        settings: EnrichSettings,
        ingest: IngestTopic,
        partitions: HeldPartitions,
        flush: Callable[[], Awaitable[None]],
        tasks: Tasks,
    ) -> None:
        self._settings = settings
        self._ingest = ingest
        self._partitions = partitions
        self._flush = flush
        self._tasks = tasks
        self._renewed: set[Partition] = set()
        """Partitions of a topic that was created again, which wait for the former topic's offset to go."""

    async def found(self, tenure: Tenure, position: Position) -> None:
        """The topic does not hold the record at ``position.offset``."""
        partition = tenure.partition
        if partition in self._renewed:
            await tenure.pause()
        elif before := self._ingest.known_id(partition, position):
            self._tasks.start(f"look at {partition}", self._look_at_topic(tenure, position, before))
        else:
            await self._deleted(tenure, position)

    async def _look_at_topic(self, tenure: Tenure, position: Position, before: str) -> None:
        partition = tenure.partition
        now = await self._ingest.id()
        if not differ(before, now):
            await self._deleted(tenure, position)
            return
        log.warning("topic_recreated", partition=str(partition), before=before, now=now)
        self._renewed.add(partition)
        try:
            await self._begin_new_topic(tenure)
        finally:
            self._renewed.discard(partition)

    async def _begin_new_topic(self, tenure: Tenure) -> None:
        """Read the partition from where a group without an offset starts. Kafka deletes the offset with the
        topic, perhaps a little later. If it stays, somebody has brought it back, and the partition stops.
        """
        self._partitions.take_no_more(tenure.partition)
        await self._flush()  # whatever was read of the former topic
        for look in range(OFFSET_LOOKS):
            tenure = await tenure.rewind()
            if tenure.position.committed is None or look == OFFSET_LOOKS - 1:
                self._partitions.begin(tenure)
                return
            self._partitions.replace(tenure)
            await tenure.pause()
            await asyncio.sleep(OFFSET_SECONDS)

    async def _deleted(self, tenure: Tenure, position: Position) -> None:
        """Records were deleted before they were read. Stop there; or, if so configured, go on after them,
        once what was read before is committed.
        """
        partition = tenure.partition
        gap = describe_gap(
            partition, position, doing="read", group=tenure.group, setting="enrich.on_missing_records"
        )
        if self._settings.on_missing_records == "continue" and gap.overtaken:
            log.error(
                "records_missing",
                partition=str(partition),
                problem=gap.problem,
                continues_at=position.low,
            )
            self._tasks.start(f"continue {partition}", self._go_on_after(tenure, position))
            return
        self._partitions.stop(partition, gap.problem, gap.ways_out)
        await tenure.pause()

    async def _go_on_after(self, tenure: Tenure, position: Position) -> None:
        try:
            while self._partitions.takes(tenure):
                if self._partitions.next_offset(tenure.partition) >= position.offset:
                    await self._flush()
                    self._partitions.begin(await tenure.rewind(position.low))
                    return
                await asyncio.sleep(CATCH_UP_SECONDS)  # its chunks are in the channel or the pipeline
        except OwnershipLost as error:
            log.info("ownership_lost", error=str(error))
