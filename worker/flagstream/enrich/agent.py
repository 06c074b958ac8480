"""The enrich stage: chunks of the ingest topic become transactions on the output topic.

A transaction spans a commit interval. While one is being committed, off the event loop, the next chunk is
already decoded and enriched; it is produced when the commit is through. Only the event loop touches the state
here, and every step between two ``await`` is atomic.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

from flagstream.chunk import Chunk, Partition, Position
from flagstream.config.settings import EnrichSettings, TopicSettings
from flagstream.crashpoints import crash_point
from flagstream.enrich.batch import PIPELINE, Batch, Enricher, Pipeline
from flagstream.enrich.clocks import SAMPLE, EventClocks
from flagstream.enrich.setbacks import Setbacks
from flagstream.enrich.transform import Transform
from flagstream.errors import OwnershipLost, TransactionAborted
from flagstream.kafka.commit_metadata import Committed, MetadataUnreadable
from flagstream.kafka.gaps import describe_gap
from flagstream.kafka.refusals import TopicRefusesAll, find_refused, find_untimely
from flagstream.kafka.tenure import Tenure, rewind
from flagstream.kafka.topic_id import TopicIdentity, differ
from flagstream.kafka.transactions import (
    NotQueued,
    QueueFull,
    RecordTooLarge,
    TransactionalProducer,
    TransactionRefused,
)
from flagstream.operate import metrics
from flagstream.operate.dead_letters import DeadLetterLog, Summary, add, summary
from flagstream.operate.health import Problem
from flagstream.operate.stopped import StoppedPartitions
from flagstream.operate.tasks import Tasks

log = structlog.get_logger(__name__)

TOPIC_ID_SECONDS = 2.0
"""How long a commit waits for the topic's id; *measured*: 1 ms."""
UNDER_WAY_SECONDS = 10.0
"""After which a transaction that has not ended is a problem; *measured*: 5 to 20 ms."""
HANGS = "Kafka's transaction coordinator does not answer: look at the brokers. It is waited for"
ROOM_SECONDS = 0.005
"""Between looks at whether the producer's queue has room again."""
ROOM_SHARE = 0.75
"""Part of the transaction time-out after which that is given up: the rest is for the commit."""
OFFSET_LOOKS, OFFSET_SECONDS = 10, 0.5
"""How often, and with which pause, to see whether Kafka has deleted the offsets of a deleted topic."""
CATCH_UP_SECONDS = 0.02
"""Between looks at whether what was read of a partition is produced, on the one occasion that asks."""


@dataclass(slots=True)
class OpenTransaction:
    """Which records the open transaction holds: each partition's tenure and the next offset to commit."""

    tenures: dict[Partition, Tenure] = field(default_factory=dict)
    offsets: dict[Partition, int] = field(default_factory=dict)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    dead: Summary = field(default_factory=dict)
    events: int = 0
    bytes: int = 0
    timer: asyncio.TimerHandle | None = None
    began: float = 0.0
    """Event loop time."""
    whole: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no batch is in it only in part: that must not be committed."""
    due: bool = False
    """To be committed as soon as it is whole."""
    alone: Batch | None = None
    """All that it holds, where that is one batch of a partition that has transactions of its own."""


class EnrichStage:
    """Satisfies :class:`flagstream.kafka.tenure.Stage`. ``fail`` is told an error that ends the process;
    ``pipeline`` is what may wait of enriched records, in bytes.
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
        self.enricher = Enricher(
            transform, keep_timestamps=settings.keep_timestamps, limit=lambda: producer.limit
        )
        self._stopped: dict[Partition, str] = {}
        self._stops = StoppedPartitions(self._look_again, lambda: asyncio.get_running_loop().time())
        self._transform = transform
        self._settings = settings
        self._topics = topics
        self._producer = producer
        self._fail = fail
        self._tenures: dict[Partition, Tenure] = {}
        self._next: dict[Partition, int] = {}
        """The offset at which the next chunk has to start, of each partition whose chunks are taken."""
        self._open: OpenTransaction | None = None
        self._commit: asyncio.Task[None] | None = None
        self._identity: TopicIdentity
        self._asking: asyncio.Task[str] | None = None
        self._topic_ids: dict[Partition, str] = {}
        self._entering: dict[Partition, asyncio.Task[None]] = {}
        self._renewed: set[Partition] = set()
        self._tasks = Tasks(fail)
        self._setbacks = Setbacks()
        self.enricher.alone = self._setbacks.alone
        self._blocked_since: float | None = None
        self._told_blocked = False
        self._batches = Pipeline(pipeline)
        self._dead_letters = DeadLetterLog(source="enrich")
        self._clocks = EventClocks()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="enrich-transactions")

    async def open(self, limit: int, keep_trying: Callable[[], bool], topic_id: Callable[[], str]) -> None:
        """Get the producer ready for records of up to ``limit`` bytes; before the first chunk. ``topic_id``
        asks for the ingest topic's id: see :class:`TopicIdentity`.
        """
        self._identity = TopicIdentity(topic_id)
        self._producer.limit = limit
        await self._blocking(lambda: self._producer.open(keep_trying))
        self._producing = self._tasks.start("enrich produce", self._produce_all(), lasts=True)

    async def close(self) -> None:
        """Nothing is in a transaction any more, and the consumer has left the group."""
        self._tasks.cancel(self._producing)
        self._dead_letters.close()
        await self._blocking(self._producer.close)
        self._thread.shutdown(wait=False)

    async def run(self, chunks: AsyncIterable[Chunk]) -> None:
        """The agent's body. Nothing unexpected leaves it unseen: Faust would restart the agent behind the
        chunk.
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

    def _look_at_clocks(self, chunk: Chunk) -> None:
        sample = [record.value() for record in chunk.records[:: len(chunk.records) // SAMPLE + 1]]
        decoder = self.enricher.decoder
        texts = sample if decoder is None else decoder.decode(sample)
        self._clocks.look(f"{chunk.partition}@{chunk.records[0].offset()}", texts)

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
        return dict.fromkeys(self._next, self._blocked)

    def look(self) -> None:
        """Do and log what only time brings; called every second or so, on the event loop."""
        self._stops.follow(self._stopped)
        if self._blocked > UNDER_WAY_SECONDS and not self._told_blocked:
            self._told_blocked = True
            known = next(self._producer.problems(), None)
            hint = known.text if known is not None else HANGS
            log.warning("transaction_under_way", seconds=UNDER_WAY_SECONDS, hint=hint)

    def look_now(self) -> None:
        """Let stopped partitions look again at once: a person says that it is mended."""
        self._stops.follow(self._stopped)
        self._stops.look_now()

    def _look_again(self, partition: Partition) -> None:
        self._stopped.pop(partition, None)
        if (tenure := self._tenures.get(partition)) is not None:
            self._tasks.start(f"look at {partition}", self._begin_again(tenure))

    async def _begin_again(self, tenure: Tenure) -> None:
        await self.flush()  # the open transaction may hold what was read before the partition stopped
        await self.assigned([await tenure.rewind()])

    @property
    def stopped(self) -> dict[Partition, str]:
        """Partitions that wait for a person to act, with the reason."""
        return self._stops.problems | self._stopped

    @property
    def _blocked(self) -> float:
        since = self._blocked_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    # ── the transaction ────────────────────────────────────────────────────────────

    async def _produce_all(self) -> None:
        """Produce batch after batch, each into the transaction that is open by then."""
        try:
            while True:
                batch = await self._batches.get()
                if (entering := self._entering.get(batch.partition)) is not None:
                    await asyncio.wait([entering])
                await self._ready_for(batch)
                await self._produce(batch)
                batch.weight.release()
        except Exception as error:
            self._detach()  # half a batch may be in it; the shutdown must not commit that
            self._fail(error)

    async def _ready_for(self, batch: Batch) -> None:
        """Wait until there is, or can be, an open transaction for the batch."""
        await self._ended()
        if self._setbacks.alone(batch.partition):
            self._close()
            await self._ended()
        if (pause := self._setbacks.left(asyncio.get_running_loop().time())) > 0:
            await asyncio.sleep(pause)

    async def _produce(self, chunk: Batch) -> None:
        """Put a batch into the open transaction if its chunk is the next of its partition; else drop or
        rewind.
        """
        tenure = self._taken(chunk.partition, chunk.epoch)
        if tenure is None:
            return
        expected = self._next[chunk.partition]
        earlier = self._open.tenures.get(chunk.partition) if self._open else None
        if chunk.start != expected or (earlier is not None and earlier.epoch != chunk.epoch):
            log.error(
                "chunk_out_of_order", partition=str(chunk.partition), expected=expected, found=chunk.start
            )
            await self._start_over([tenure], OwnershipLost("a chunk is missing"))
            return
        try:
            transaction = self._begin()
            transaction.alone = chunk if self._setbacks.alone(chunk.partition) else None
            self._producer.release_delivered()
            queued = self._queue(chunk, 0)
            if queued == 0 and chunk.count and transaction.offsets:
                # The queue is full of what the transaction holds already: nothing of that has to wait.
                self._close()
                await self._ready_for(chunk)
                await self._produce(chunk)
                return
            if queued < chunk.count and not await self._queue_rest(transaction, tenure, chunk, queued):
                return
        except NotQueued as error:
            await self._start_over([tenure], error)
            return
        crash_point("enrich.produced")
        self._next[chunk.partition] = chunk.end
        transaction.tenures[chunk.partition] = tenure
        transaction.offsets[chunk.partition] = chunk.end
        transaction.outcomes.update(chunk.outcomes)
        add(transaction.dead, summary(chunk.dead))
        transaction.events += len(chunk.records) + len(chunk.dead)
        transaction.bytes += chunk.bytes
        if (
            transaction.alone is not None
            or transaction.due
            or transaction.events >= self._settings.max_transaction_events
            or transaction.bytes >= self._settings.max_transaction_bytes
        ):
            self._close()

    def _queue(self, batch: Batch, queued: int) -> int:
        """Hand in what follows the first ``queued`` records and dead letters of the batch, as far as the
        producer's queue has room. Returns how many of them are in it now. Raises NotQueued.
        """
        records = batch.records
        try:
            if batch.plain and queued < len(records):
                self._producer.produce_batch(self._topics.output, records[queued:] if queued else records)
                queued = len(records)
            for record in records[queued:]:
                self._producer.produce(self._topics.output, wait=0.0, **record)
                queued += 1
            for letter in batch.dead[queued - len(records) :]:
                self._producer.produce(
                    self._topics.dead_letters,
                    key=letter.key,
                    value=letter.value,
                    headers=letter.headers,
                    wait=0.0,
                )
                queued += 1
        except QueueFull as full:
            queued += full.queued
        return queued

    async def _queue_rest(
        self, transaction: OpenTransaction, tenure: Tenure, batch: Batch, queued: int
    ) -> bool:
        """Wait for brokers to take records until all of the batch is in the queue, but no longer than leaves
        time for the commit. False: the transaction was given up meanwhile, and the batch is read again.
        Raises NotQueued.
        """
        loop = asyncio.get_running_loop()
        give_up = transaction.began + self._settings.transaction_timeout * ROOM_SHARE
        transaction.tenures[batch.partition] = tenure
        transaction.whole.clear()
        try:
            while queued < batch.count:
                if loop.time() > give_up:
                    raise QueueFull(queued)
                await asyncio.sleep(ROOM_SECONDS)
                if self._open is not transaction:
                    return False
                self._producer.release_delivered()
                queued = self._queue(batch, queued)
        finally:
            transaction.whole.set()
        return True

    def _begin(self) -> OpenTransaction:
        """The open transaction. Raises NotQueued where none begins; then it has to be given up."""
        if self._open is None:
            loop = asyncio.get_running_loop()
            self._open = OpenTransaction(began=loop.time())
            self._open.whole.set()
            self._producer.begin()
            self._open.timer = loop.call_later(self._settings.commit_interval, self._close)
        return self._open

    def _close(self) -> None:
        """Commit the open transaction in the background; :meth:`_ended` waits for it. One that is not whole
        is committed as soon as it is.
        """
        if self._open is not None and not self._open.whole.is_set():
            self._open.due = True
            return
        transaction = self._detach()
        if transaction is not None:
            self._commit = self._tasks.start("enrich commit", self._end(transaction))

    def _detach(self) -> OpenTransaction | None:
        """The open transaction, which is open no longer: its end is up to the caller."""
        transaction, self._open = self._open, None
        if transaction is not None and transaction.timer is not None:
            transaction.timer.cancel()
        return transaction

    async def _ended(self) -> None:
        while self._commit is not None:
            await asyncio.wait([self._commit])

    async def _end(self, transaction: OpenTransaction) -> None:
        try:
            began = time.monotonic()
            try:
                await self._check_topic(transaction.tenures)
                # After the look at the topic: an id that is told only now is not left to a later commit.
                tenures = transaction.tenures
                offsets = {p: (offset, self._text(tenures[p])) for p, offset in transaction.offsets.items()}
                first, *others = tenures.values()
                group = await first.group_metadata(*others)
            except OwnershipLost as error:
                await self._give_up(transaction.tenures, error, transaction.alone)
                return
            try:
                await self._blocking(lambda: self._producer.commit(offsets, group))
            except TransactionAborted as error:
                await self._aborted(transaction.tenures, error, transaction.alone)
                return
            crash_point("enrich.committed")
            self._committed(transaction)
            for partition, offset in transaction.offsets.items():
                tenures[partition].committed_in_transaction(offset)
                if partition not in self._stopped:
                    self._stops.forget(partition)
            took = time.monotonic() - began
            self._count(transaction, took)
            log.debug(
                "transaction_committed",
                events=transaction.events,
                offsets={str(partition): offset for partition, offset in transaction.offsets.items()},
                seconds=round(took, 3),
            )
        except Exception as error:
            self._fail(error)
        finally:
            self._commit = None

    async def _check_topic(self, partitions: Iterable[Partition]) -> None:
        """Before anything of them is committed, and so after it was fetched. Raises OwnershipLost where their
        topic was deleted and created anew meanwhile: what is read from then on are other records, and the
        first of them may have been stepped over.
        """
        now = await self._topic_id()
        for partition in partitions:
            before = self._topic_ids.get(partition, "")
            if differ(before, now):
                raise OwnershipLost(f"{self._topics.ingest} was recreated; its id is {now} now")
            self._topic_ids[partition] = before or now

    async def _topic_id(self) -> str:
        """The ingest topic's id; nothing if it is not told in time. Brokers that are away must not hold up
        more than they do anyway: the next commit asks again, and tells then.
        """
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.create_task(self._identity.now())
        told, _ = await asyncio.wait([asking], timeout=TOPIC_ID_SECONDS)
        return asking.result() if told else ""

    def _text(self, tenure: Tenure) -> str:
        """The metadata of a committed offset."""
        topic_id = self._topic_ids.get(tenure.partition, "")
        return Committed(topic_id=topic_id, group_start=tenure.group_start).text()

    def _count(self, transaction: OpenTransaction, seconds: float) -> None:
        metrics.TRANSACTIONS.labels("enrich", "committed").inc()
        metrics.TRANSACTION_SECONDS.labels("enrich").observe(seconds)
        for (outcome, reason), count in transaction.outcomes.items():
            metrics.EVENTS.labels(outcome, reason).inc(count)
        self._dead_letters.tell(transaction.dead)
        metrics.UNRESOLVED.inc(self._transform.unresolved)
        self._transform.unresolved = 0

    def _committed(self, transaction: OpenTransaction) -> None:
        self._setbacks.committed(transaction.tenures, asyncio.get_running_loop().time())
        for partition, end in transaction.offsets.items():
            if refused := self.enricher.refused.pop(partition, None):
                left = {offset: error for offset, error in refused.items() if offset >= end}
                if left:
                    self.enricher.refused[partition] = left

    async def _aborted(
        self, tenures: Mapping[Partition, Tenure], error: Exception, alone: Batch | None = None
    ) -> None:
        """The producer has rolled back: nothing of it is visible, and its records are read again, after a
        pause that grows. ``alone`` is what the transaction held, where it was a partition's own.
        """
        metrics.TRANSACTIONS.labels("enrich", "aborted").inc()
        now = asyncio.get_running_loop().time()
        told = log.bind(error=str(error), partitions=sorted(map(str, tenures)))
        if isinstance(error, OwnershipLost | RecordTooLarge):
            told.info("transaction_aborted")
        elif not isinstance(error, TransactionRefused):
            told.warning("transaction_aborted", retry_in=round(self._setbacks.failed(str(error), now), 2))
        elif alone is None or not self._still(tenures.get(alone.partition)):
            # What was lost meanwhile is its next owner's, whose page would not clear ours of it.
            self._setbacks.part([p for p, tenure in tenures.items() if self._still(tenure)], now)
            told.warning("transaction_aborted")
        elif found := await self._refused_by_topic(alone, error):
            self.enricher.refused.setdefault(alone.partition, {}).update(found)
            told.warning("transaction_aborted", refused_records=len(found))
        elif self._still(tenures.get(alone.partition)):  # still, after the search
            pause = self._setbacks.refused(alone.partition, str(error), now)
            told.warning("transaction_aborted", retry_in=round(pause, 2))
            await self._wait(tenures.values(), pause)
            return
        await self._rewind(tenures.values())

    def _taken(self, partition: Partition, epoch: int) -> Tenure | None:
        """The tenure of the partition, if that is its epoch and its chunks are taken."""
        tenure = self._tenures.get(partition)
        return tenure if tenure is not None and tenure.epoch == epoch and partition in self._next else None

    def _still(self, tenure: Tenure | None) -> bool:
        """Whether chunks of the tenure are still taken."""
        return tenure is not None and self._taken(tenure.partition, tenure.epoch) is not None

    async def _refused_by_topic(self, batch: Batch, error: TransactionRefused) -> dict[int, str]:
        """The offsets of the records that the output topic refuses, with the reason; none where it is not for
        the records that it refused.
        """
        if not error.of_a_record or (error.untimely and not self._settings.keep_timestamps):
            return {}  # a time of sending that is refused is a clock that is wrong
        records = [
            {name: value for name, value in record.items() if name != "_error"} for record in batch.records
        ]

        def takes(some: Sequence[int]) -> bool:
            return self._producer.takes(self._topics.output, [records[index] for index in sorted(some)])

        def search() -> list[int]:
            if not error.untimely:
                return find_refused(len(records), takes)
            now = round(time.time() * 1000)
            return find_untimely([record["timestamp"] or now for record in records], now, takes)

        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, search)
        except (TopicRefusesAll, TransactionAborted) as failure:
            log.warning("search_failed", partition=str(batch.partition), error=str(failure))
            return {}
        return {batch.offsets[index]: str(error) for index in found}

    async def _wait(self, tenures: Collection[Tenure], seconds: float) -> None:
        """Read the partitions again after a while, and produce nothing of them until then."""
        for tenure in tenures:
            self._next.pop(tenure.partition, None)
            try:
                await tenure.pause()
            except OwnershipLost as error:
                log.info("ownership_lost", error=str(error))

        async def go_on() -> None:
            await asyncio.sleep(seconds)
            await self._rewind(tenures)

        self._tasks.start("enrich wait", go_on())

    async def _start_over(self, tenures: Collection[Tenure], error: Exception) -> None:
        """Roll the open transaction back, if there is one, and read ``tenures`` and all that it held again;
        nothing is produced meanwhile.
        """
        transaction = self._detach()
        if transaction is None:
            await self._rewind(tenures)
            return
        every = {**transaction.tenures, **{tenure.partition: tenure for tenure in tenures}}
        self._commit = self._tasks.start("enrich abort", self._give_up(every, error, transaction.alone))
        await self._ended()

    async def _give_up(
        self, tenures: Mapping[Partition, Tenure], error: Exception, alone: Batch | None
    ) -> None:
        try:
            try:
                await self._blocking(self._producer.abort)
            except TransactionAborted as reason:  # what had broken it, before anybody gave it up
                error = reason
            await self._aborted(tenures, error, alone)
        except Exception as failure:
            self._fail(failure)
        finally:
            self._commit = None

    async def _rewind(self, tenures: Collection[Tenure]) -> None:
        for tenure in await rewind(tenures):
            self._begin_with(tenure)

    async def _blocking(self, function: Callable[[], None]) -> None:
        self._blocked_since, self._told_blocked = asyncio.get_running_loop().time(), False
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, function)
        finally:
            self._blocked_since = None

    # ── what the chunk source tells ────────────────────────────────────────────────────────────

    async def assigned(self, tenures: Collection[Tenure]) -> None:
        for tenure in tenures:
            self._begin_with(tenure)
            if not tenure.position.readable:
                await self.records_missing(tenure, tenure.position)

    def _begin_with(self, tenure: Tenure) -> None:
        partition = tenure.partition
        self._tenures[partition] = tenure
        self._next[partition] = tenure.position.offset
        self._stopped.pop(partition, None)
        self._entering[partition] = self._tasks.start(f"enter {partition}", self._enter(tenure))

    async def _enter(self, tenure: Tenure) -> None:
        """What comes before the first record of a partition is produced: a look at whether its offset is one
        of this topic, and under start = "latest" a commit of where it begins, for that is decided once.
        Repeated after a transaction that commit would set the offset back.

        Not awaited by a rebalance callback: a commit may need polls, which wait for the callback to return.
        """
        try:
            if not await self._fits(tenure):
                return
            if tenure.position.committed is None and tenure.group_start is not None:
                await tenure.commit(tenure.position.offset, self._text(tenure))
        except OwnershipLost as error:
            log.info("ownership_lost", error=str(error))
        except Exception as error:
            self._fail(error)
        finally:
            if self._entering.get(tenure.partition) is asyncio.current_task():
                del self._entering[tenure.partition]

    async def _fits(self, tenure: Tenure) -> bool:
        """Learn the id of the partition's topic. False: the committed offset belongs to another one, or says
        what this version cannot read and would erase, so the partition is stopped. Raises OwnershipLost.
        """
        partition = tenure.partition
        try:
            before = Committed.parse(tenure.position.metadata).topic_id
        except MetadataUnreadable as error:
            await self._stop(tenure, str(error), "run a worker of the version that committed it")
            return False
        now = await self._topic_id()
        if differ(before, now):
            problem = (
                f"{partition} was recreated (its topic id is {now}, the committed offset belongs to "
                f"{before}): offsets mean other records now"
            )
            ways_out = f"stop the workers, delete the offsets of the group {tenure.group} for the topic"
            await self._stop(tenure, problem, ways_out)
            return False
        self._topic_ids[partition] = now or before
        return True

    async def _stop(self, tenure: Tenure, problem: str, ways_out: str) -> None:
        """Produce nothing more of the partition, until a person has acted. Raises OwnershipLost where it is
        not ours any more.
        """
        partition = tenure.partition
        await tenure.pause()
        self._next.pop(partition, None)
        self._stopped[partition] = problem
        log.error("partition_stopped", partition=str(partition), problem=problem, ways_out=ways_out)

    async def revoked(self, partitions: Collection[Partition]) -> None:
        await self.flush()
        self._forget(partitions)

    async def lost(self, partitions: Collection[Partition]) -> None:
        self._forget(partitions)
        await self._ended()
        if self._open is not None:
            await self._start_over([], OwnershipLost("partitions lost"))

    def _forget(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._tenures.pop(partition, None)
            self._next.pop(partition, None)
            self._topic_ids.pop(partition, None)
            self._stopped.pop(partition, None)
            self._stops.forget(partition)
            self.enricher.refused.pop(partition, None)
        self._setbacks.forget(partitions)

    async def records_missing(self, tenure: Tenure, position: Position) -> None:
        """The topic does not hold what comes next: it was recreated, which its id tells, or records were
        deleted.
        """
        partition = tenure.partition
        if partition in self._renewed:  # and read again until the group's offset is gone
            await tenure.pause()
        elif before := self._topic_ids.get(partition, "") or _topic_id(position):
            # Not awaited by the consumer's thread: brokers may be away.
            self._tasks.start(f"look at {partition}", self._look_at_topic(tenure, position, before))
        else:
            await self._records_deleted(tenure, position)

    async def _look_at_topic(self, tenure: Tenure, position: Position, before: str) -> None:
        partition = tenure.partition
        now = await self._topic_id()
        if not differ(before, now):
            await self._records_deleted(tenure, position)
            return
        log.warning("topic_recreated", partition=str(partition), before=before, now=now)
        self._renewed.add(partition)
        try:
            await self._begin_new_topic(tenure)
        finally:
            self._renewed.discard(partition)

    async def _begin_new_topic(self, tenure: Tenure) -> None:
        """Read the partition from where a group without an offset starts. Kafka deletes the offset with the
        topic, a little later perhaps; one that stays was brought back by somebody, and stops the partition.
        """
        self._next.pop(tenure.partition, None)
        await self.flush()  # whatever was read of the former topic
        for look in range(OFFSET_LOOKS):
            tenure = self._tenures[tenure.partition] = await tenure.rewind()
            if tenure.position.committed is None or look == OFFSET_LOOKS - 1:
                self._begin_with(tenure)
                return
            await tenure.pause()
            await asyncio.sleep(OFFSET_SECONDS)

    async def _records_deleted(self, tenure: Tenure, position: Position) -> None:
        """Ingest records were deleted before they were read: stop there, or go on behind them if so
        configured, once what was read before is committed.
        """
        partition = tenure.partition
        found = describe_gap(
            partition,
            position,
            doing="read",
            group=tenure.group,
            setting="enrich.on_missing_records",
        )
        if self._settings.on_missing_records == "continue" and found.overtaken:
            log.error(
                "records_missing",
                partition=str(partition),
                problem=found.problem,
                continues_at=position.low,
            )
            # Not awaited by the consumer's thread: what was read may need its polls to be committed.
            self._tasks.start(f"continue {partition}", self._go_on_behind(tenure, position))
            return
        self._stopped[partition] = found.problem
        log.error(
            "partition_stopped", partition=str(partition), problem=found.problem, ways_out=found.ways_out
        )
        await tenure.pause()

    async def _go_on_behind(self, tenure: Tenure, position: Position) -> None:
        try:
            while self._still(tenure):
                if self._next[tenure.partition] >= position.offset:
                    await self.flush()
                    self._begin_with(await tenure.rewind(position.low))
                    return
                await asyncio.sleep(CATCH_UP_SECONDS)  # its chunks are in the channel or the pipeline
        except OwnershipLost as error:
            log.info("ownership_lost", error=str(error))
        except Exception as error:
            self._fail(error)

    async def flush(self) -> None:
        """Commit what is in the open transaction; returns when it has ended, one way or the other."""
        await self._ended()
        while self._open is not None and not self._open.whole.is_set():
            await self._open.whole.wait()
        self._close()
        await self._ended()


def _topic_id(position: Position) -> str:
    """The id of the topic that the committed offset belongs to, where that is known."""
    try:
        return Committed.parse(position.metadata).topic_id
    except MetadataUnreadable:
        return ""
