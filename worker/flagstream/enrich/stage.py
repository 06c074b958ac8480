"""The enrich stage: chunks of the ingest topic become transactions on the output topic.

::

    chunk ──▶ prepare ──▶ enrich ──▶ pipeline ──▶ transaction ──▶ commit
              (decoder)   (batch)    (a queue)    (an interval)   records and offsets as one

A transaction spans a commit interval. While one is being committed, off the event loop, the next chunks are
already decoded and enriched; they are produced after the commit. Only the event loop touches the state of the
stage, and what happens between two ``await`` is one step.
"""

import asyncio
from collections.abc import AsyncIterable, Callable, Collection, Iterator, Mapping

import structlog

from flagstream.chunk import Chunk, Partition, Position
from flagstream.config.settings import EnrichSettings, TopicSettings
from flagstream.enrich.aftermath import StageAftermath
from flagstream.enrich.batch import PIPELINE, Batch, Enricher, Pipeline
from flagstream.enrich.clocks import SAMPLE, EventClocks
from flagstream.enrich.ingest_topic import IngestTopic
from flagstream.enrich.missing_records import MissingRecords
from flagstream.enrich.partitions import HeldPartitions
from flagstream.enrich.setbacks import Setbacks
from flagstream.enrich.thread import TransactionThread
from flagstream.enrich.transaction import Added, EnrichTransaction, Phase
from flagstream.enrich.transform import Transform
from flagstream.errors import OwnershipLost
from flagstream.kafka.tenure import Tenure
from flagstream.kafka.transactions import TransactionalProducer
from flagstream.operate.dead_letters import DeadLetterLog
from flagstream.operate.health import Problem
from flagstream.operate.tasks import Tasks

log = structlog.get_logger(__name__)


class EnrichStage:
    """Satisfies :class:`flagstream.kafka.tenure.Stage`. ``fail`` is called with an error that ends the
    process. ``pipeline`` is how many bytes of enriched records may wait.
    """

    def __init__(
        self,
        settings: EnrichSettings,
        topics: TopicSettings,
        transform: Transform,
        producer: TransactionalProducer,
        fail: Callable[[BaseException], None],
        pipeline: int = PIPELINE,
    ) -> None:
        self._fail = fail
        self._producer = producer
        self._tasks = Tasks(fail)
        self._setbacks = Setbacks()
        self.enricher = Enricher(
            transform,
            keep_timestamps=settings.keep_timestamps,
            limit=lambda: producer.limit,
            alone=self._setbacks.alone,
        )
        self._batches = Pipeline(pipeline)
        self._dead_letters = DeadLetterLog(source="enrich")
        self._clocks = EventClocks()
        self._thread = TransactionThread(producer)
        self._ingest = IngestTopic(topics.ingest)
        self._partitions = HeldPartitions(self._ingest, self._look_again, self._tasks)
        aftermath = StageAftermath(
            settings,
            topics.output,
            producer,
            self._thread,
            self.enricher,
            self._partitions,
            self._setbacks,
            self._dead_letters,
        )
        self._transaction = EnrichTransaction(
            settings, topics, producer, self._thread, self._ingest, aftermath, self._tasks
        )
        self._missing = MissingRecords(
            settings, self._ingest, self._partitions, self._transaction.flush, self._tasks
        )

    async def open(self, limit: int, keep_trying: Callable[[], bool], topic_id: Callable[[], str]) -> None:
        """Get the producer ready for records of up to ``limit`` bytes; called before the first chunk.

        ``topic_id`` asks for the ingest topic's id: see :class:`flagstream.kafka.topic_id.TopicIdentity`.
        """
        self._ingest.ask = topic_id
        self._producer.limit = limit
        await self._thread.end(lambda: self._producer.open(keep_trying))
        self._tasks.start("enrich produce", self._produce_all(), lasts=True)

    async def close(self) -> None:
        """Called when nothing is in a transaction any more, and the consumer has left the group."""
        self._tasks.cancel()
        self._dead_letters.close()
        await self._thread.end(self._producer.close)
        self._thread.close()

    # ── the flow ────────────────────────────────────────────────────────────

    async def run(self, chunks: AsyncIterable[Chunk]) -> None:
        """The agent's body. No unexpected error leaves it unseen: Faust would restart the agent after the
        chunk, which would be lost.
        """
        try:
            async for chunk in chunks:
                await self.enricher.prepare(chunk)
                self._look_at_clocks(chunk)
                batch = self.enricher.enrich(chunk)
                batch.weight.become(batch.memory)
                del chunk  # its records are weighed no longer
                await self._batches.put(batch)  # and so into a transaction, by _produce_all
        except Exception as error:
            self._fail(error)
            raise

    async def _produce_all(self) -> None:
        """Produce batch after batch, each into the transaction that is open by then."""
        try:
            while True:
                batch = await self._batches.get()
                await self._partitions.entered(batch.partition)
                await self._produce(batch)
                batch.weight.release()
        except Exception:
            self._transaction.discard()  # half a batch may be in it; the shutdown must not commit that
            raise

    async def _produce(self, batch: Batch) -> None:
        """Put a batch into the open transaction if its chunk is the next one of its partition. A chunk of an
        earlier tenure is dropped; after one that does not join, its partition is read again.
        """
        added = Added.NO_ROOM
        while added is Added.NO_ROOM:
            await self._ready_for(batch)
            tenure = self._partitions.tenure_of(batch)
            if tenure is None or self._transaction.failed:
                return
            if not self._joins(batch):
                await self._read_again(tenure, OwnershipLost("a chunk is missing"))
                return
            alone = self._setbacks.alone(batch.partition)
            added = await self._transaction.add(batch, tenure, alone=alone)
        if added is Added.WHOLE:
            self._partitions.produced(batch)

    async def _ready_for(self, batch: Batch) -> None:
        """Wait until there is, or can be, an open transaction for the batch."""
        await self._transaction.ended()
        if self._setbacks.alone(batch.partition):
            self._transaction.close()
            await self._transaction.ended()
        if (pause := self._setbacks.left(asyncio.get_running_loop().time())) > 0:
            await asyncio.sleep(pause)

    def _joins(self, batch: Batch) -> bool:
        """Return whether the batch starts where the one before it ended, in the same tenure as what the open
        transaction holds of the partition.
        """
        expected = self._partitions.next_offset(batch.partition)
        earlier = self._transaction.tenure_of(batch.partition)
        if batch.start == expected and (earlier is None or earlier.epoch == batch.epoch):
            return True
        log.error("chunk_out_of_order", partition=str(batch.partition), expected=expected, found=batch.start)
        return False

    async def _read_again(self, tenure: Tenure, error: Exception) -> None:
        """Roll the open transaction back, if there is one; read all that it held, and ``tenure``, again."""
        if self._transaction.phase is Phase.OPEN:
            await self._transaction.abort(error, tenure)
        else:
            await self._partitions.rewind([tenure])

    def _look_at_clocks(self, chunk: Chunk) -> None:
        sample = [record.value() for record in chunk.records[:: len(chunk.records) // SAMPLE + 1]]
        decoder = self.enricher.decoder
        texts = sample if decoder is None else decoder.decode(sample)
        self._clocks.look(f"{chunk.partition}@{chunk.records[0].offset()}", texts)

    # ── what the chunk source calls ────────────────────────────────────────────────────────────

    async def assigned(self, tenures: Collection[Tenure]) -> None:
        for tenure in tenures:
            self._partitions.begin(tenure)
            if not tenure.position.readable:
                await self._missing.found(tenure, tenure.position)

    async def revoked(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:  # first: a batch that comes during the flush would begin a transaction
            self._partitions.take_no_more(partition)
        await self.flush()
        self._forget(partitions)

    async def lost(self, partitions: Collection[Partition]) -> None:
        self._forget(partitions)
        await self._transaction.ended()
        if self._transaction.phase is Phase.OPEN:
            await self._transaction.abort(OwnershipLost("partitions lost"))

    async def records_missing(self, tenure: Tenure, position: Position) -> None:
        await self._missing.found(tenure, position)

    async def flush(self) -> None:
        """Commit what is in the open transaction. Returns when it has ended, one way or the other."""
        await self._transaction.flush()

    def _forget(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._partitions.forget(partition)
            self.enricher.refused.pop(partition, None)
        self._setbacks.forget(partitions)

    # ── what the host calls ────────────────────────────────────────────────────────────

    @property
    def stopped(self) -> dict[Partition, str]:
        """The partitions that wait for a person to act, with the reason."""
        return self._partitions.stopped

    def problems(self) -> Iterator[Problem]:
        """Yield what keeps records from being enriched."""
        for partition, text in self.stopped.items():
            yield Problem("partition_stopped", text, str(partition))
        yield from self._dead_letters.problems()
        yield from self._clocks.problems()
        yield from self._setbacks.problems()
        yield from self._producer.problems()
        if self.enricher.decoder is not None and self.enricher.decoder.trouble:
            yield Problem("registry", self.enricher.decoder.trouble)

    def under_way(self) -> Mapping[Partition, float]:
        """Return for how many seconds the call that ends the transaction of each partition is under way."""
        return dict.fromkeys(self._partitions.taking(), self._thread.busy)

    def look(self) -> None:
        """Do and log what only time brings; called every second or so, on the event loop."""
        self._partitions.follow_stopped()
        self._thread.log_if_slow()

    def look_now(self) -> None:
        """Let stopped partitions start again at once: a person says that the reason is gone."""
        self._partitions.look_now()

    def _look_again(self, tenure: Tenure) -> None:
        self._tasks.start(f"look at {tenure.partition}", self._begin_again(tenure))

    async def _begin_again(self, tenure: Tenure) -> None:
        await self.flush()  # the open transaction may hold what was read before the partition stopped
        await self.assigned([await tenure.rewind()])
