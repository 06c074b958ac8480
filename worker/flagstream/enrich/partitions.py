"""The partitions that the enrich stage holds: what comes next in each, and what has to happen before that."""

import asyncio
from collections.abc import Callable, Collection, Iterable

import structlog

from flagstream.chunk import Partition
from flagstream.enrich.batch import Batch
from flagstream.enrich.ingest_topic import IngestTopic
from flagstream.errors import OwnershipLost
from flagstream.kafka.commit_metadata import MetadataUnreadable
from flagstream.kafka.tenure import Tenure, rewind
from flagstream.operate.stopped import StoppedPartitions
from flagstream.operate.tasks import Tasks

log = structlog.get_logger(__name__)


class HeldPartitions:
    """Keeps the tenure and the next offset of each partition. Used on the event loop.

    ``look_again`` is called with a stopped partition whose time has come to start again.
    """

    def __init__(self, ingest: IngestTopic, look_again: Callable[[Tenure], None], tasks: Tasks) -> None:
        self._ingest = ingest
        self._look_again = look_again
        self._tasks = tasks
        self._tenures: dict[Partition, Tenure] = {}
        self._next: dict[Partition, int] = {}
        """The offset at which the next chunk has to start, of each partition whose chunks are taken."""
        self._stopped: dict[Partition, str] = {}
        self._stops = StoppedPartitions(self._begin_stopped, lambda: asyncio.get_running_loop().time())
        self._entering: dict[Partition, asyncio.Task[None]] = {}

    # ── chunks ────────────────────────────────────────────────────────────

    def taking(self) -> Collection[Partition]:
        """Return the partitions whose chunks are taken."""
        return self._next.keys()

    def tenure_of(self, batch: Batch) -> Tenure | None:
        """Return the tenure that the batch's chunk was fetched in, if its chunks are still taken."""
        tenure = self._tenures.get(batch.partition)
        return tenure if self.takes(tenure) and tenure is not None and tenure.epoch == batch.epoch else None

    def takes(self, tenure: Tenure | None) -> bool:
        """Return whether chunks of the tenure are still taken."""
        if tenure is None or tenure.partition not in self._next:
            return False
        return self._tenures[tenure.partition].epoch == tenure.epoch

    def next_offset(self, partition: Partition) -> int:
        """Return the offset at which the next chunk of a partition has to start. Its chunks are taken."""
        return self._next[partition]

    def produced(self, batch: Batch) -> None:
        """All of the batch is in the transaction, so the next chunk starts at its end."""
        if batch.partition in self._next:
            self._next[batch.partition] = batch.end

    def take_no_more(self, partition: Partition) -> None:
        """Drop chunks of the partition until it begins again."""
        self._next.pop(partition, None)

    # ── beginning, again and again ────────────────────────────────────────────────────────────

    def begin(self, tenure: Tenure) -> None:
        """Take chunks of ``tenure`` from its position on."""
        partition = tenure.partition
        self._tenures[partition] = tenure
        self._next[partition] = tenure.position.offset
        self._stopped.pop(partition, None)
        self._entering[partition] = self._tasks.start(f"enter {partition}", self._enter(tenure))

    async def entered(self, partition: Partition) -> None:
        """Wait until records of the partition may be produced."""
        if (entering := self._entering.get(partition)) is not None:
            await asyncio.wait([entering])

    async def _enter(self, tenure: Tenure) -> None:
        """Runs before a partition's first record is produced. Checks that the committed offset belongs to
        this topic; with start = "latest" it also commits the starting offset, which is chosen only once.
        After a transaction that commit would set the offset back.

        No rebalance callback waits for this: a commit may need polls, which wait for the callback to return.
        """
        try:
            if not await self._fits(tenure):
                return
            if tenure.position.committed is None and tenure.group_start is not None:
                await tenure.commit(tenure.position.offset, self._ingest.metadata(tenure))
        except OwnershipLost as error:
            log.info("ownership_lost", error=str(error))
        finally:
            if self._entering.get(tenure.partition) is asyncio.current_task():
                del self._entering[tenure.partition]

    async def _fits(self, tenure: Tenure) -> bool:
        """Return False, and stop the partition, if the committed offset belongs to another topic, or if its
        metadata says what this version cannot read and would erase. Raises OwnershipLost.
        """
        try:
            ids = await self._ingest.recreated(tenure)
        except MetadataUnreadable as error:
            problem, ways_out = str(error), "run a worker of the version that committed it"
        else:
            if ids is None:
                return True
            before, now = ids
            problem = (
                f"{tenure.partition} was recreated (its topic id is {now}, the committed offset belongs to "
                f"{before}): offsets mean other records now"
            )
            ways_out = f"stop the workers, delete the offsets of the group {tenure.group} for the topic"
        await tenure.pause()
        self.take_no_more(tenure.partition)
        self.stop(tenure.partition, problem, ways_out)
        return False

    async def rewind(self, tenures: Iterable[Tenure]) -> None:
        """Read again from the committed offsets on, in new tenures. Partitions that are lost are left out."""
        for tenure in await rewind(tenures):
            self.begin(tenure)

    async def rewind_later(self, tenures: Collection[Tenure], seconds: float) -> None:
        """Read again after ``seconds``, and take no chunks until then. Returns at once."""
        for tenure in tenures:
            self.take_no_more(tenure.partition)
            try:
                await tenure.pause()
            except OwnershipLost as error:
                log.info("ownership_lost", error=str(error))

        async def go_on() -> None:
            await asyncio.sleep(seconds)
            await self.rewind(tenures)

        self._tasks.start("enrich wait", go_on())

    def replace(self, tenure: Tenure) -> None:
        """Keep ``tenure`` as the partition's present one, without taking its chunks."""
        self._tenures[tenure.partition] = tenure

    def forget(self, partition: Partition) -> None:
        """The partition is not held any more."""
        self._tenures.pop(partition, None)
        self._next.pop(partition, None)
        self._stopped.pop(partition, None)
        self._stops.forget(partition)
        self._ingest.forget(partition)

    # ── stopped partitions ────────────────────────────────────────────────────────────

    @property
    def stopped(self) -> dict[Partition, str]:
        """The partitions that wait for a person to act, with the reason."""
        return self._stops.problems | self._stopped

    def stop(self, partition: Partition, problem: str, ways_out: str) -> None:
        """Report that the partition waits for a person to act."""
        self._stopped[partition] = problem
        log.error("partition_stopped", partition=str(partition), problem=problem, ways_out=ways_out)

    def committed(self, partition: Partition) -> None:
        """Something of the partition was committed: unless it has stopped again, it is well."""
        if partition not in self._stopped:
            self._stops.forget(partition)

    def follow_stopped(self) -> None:
        """Let stopped partitions start again whose time has come; called every second or so."""
        self._stops.follow(self._stopped)

    def look_now(self) -> None:
        """Let stopped partitions start again at once: a person says that the reason is gone."""
        self._stops.follow(self._stopped)
        self._stops.look_now()

    def _begin_stopped(self, partition: Partition) -> None:
        self._stopped.pop(partition, None)
        if (tenure := self._tenures.get(partition)) is not None:
            self._look_again(tenure)
