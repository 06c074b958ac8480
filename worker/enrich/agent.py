"""The enrich stage: chunks of the ingest topic become transactions on the output topic.

A transaction spans a commit interval. While one is being committed, off the event loop, the next chunk is
already decoded and enriched; it is produced when the commit is through. Only the event loop touches the state
here, and every step between two ``await`` is atomic.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from operator import length_hint, methodcaller
from typing import Any

import structlog

from worker.chunk import Chunk, Partition, Position, Record
from worker.config.settings import EnrichSettings, TopicSettings
from worker.crashpoints import reached
from worker.dead_letters import ENVELOPE, DeadLetter, dead_letter, forget_headers, headers_of, size
from worker.enrich.transform import Dead, Drop, Transform
from worker.errors import OwnershipLost, TransactionAborted
from worker.kafka.offsets import Committed
from worker.kafka.source import ChunkSource
from worker.kafka.transactions import NotQueued, RecordTooLarge, TransactionalProducer
from worker.operate import metrics
from worker.topic_formats.protocol import Decoder, Encoder

log = structlog.get_logger(__name__)
_headers = methodcaller("headers")

PIPELINE = 18 * 1024**2
"""Bytes that enriched records may take while a transaction is committed: 100 ms of work at full speed."""
RECORD_OVERHEAD = 250
"""Bytes that a waiting record takes beside its value: the dictionary for ``produce_batch``, the key."""
CATCH_UP_SECONDS = 0.02
"""Between looks at whether what was read of a partition is produced, on the one occasion that asks."""
SURELY_FITS = 1_000
"""Bytes of key and value that need no look at the topic's limit, which leaves at least so many."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a chunk became: records for the output topic and dead letters, in the chunk's order."""

    partition: Partition
    epoch: int
    start: int
    end: int
    records: list[dict[str, Any]]
    """Arguments of ``produce``, or of ``produce_batch`` where ``plain``."""
    plain: bool
    """No record has headers or keeps its timestamp: ``produce_batch``, which knows neither, will do."""
    dead: list[DeadLetter]
    outcomes: Counter[tuple[str, str]]
    bytes: int

    @property
    def memory(self) -> int:
        return self.bytes + RECORD_OVERHEAD * len(self.records)


class Pipeline(asyncio.Queue[Batch]):
    """Batches that wait for their transaction. They hold from one record to thousands, so it is full by the
    memory that they take: ``maxsize`` counts bytes.
    """

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._memory = 0

    def full(self) -> bool:
        return self._memory >= self.maxsize

    def _put(self, item: Batch) -> None:
        self._memory += item.memory
        super()._put(item)

    def _get(self) -> Batch:
        batch: Batch = super()._get()
        self._memory -= batch.memory
        return batch


@dataclass(slots=True)
class OpenTransaction:
    """Which records the open transaction holds: each partition's epoch and the next offset to commit."""

    epochs: dict[Partition, int] = field(default_factory=dict)
    offsets: dict[Partition, int] = field(default_factory=dict)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    events: int = 0
    bytes: int = 0
    timer: asyncio.TimerHandle | None = None


class EnrichStage:
    """Satisfies :class:`worker.kafka.consumer.Stage`. ``fail`` is told an error that ends the process."""

    def __init__(
        self,
        settings: EnrichSettings,
        topics: TopicSettings,
        transform: Transform,
        producer: TransactionalProducer,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.source: ChunkSource
        self.decoder: Decoder | None = None
        self.encoder: Encoder | None = None
        """Of topics that are not JSON; set before the first chunk."""
        self.transform = transform
        self.stopped: dict[Partition, str] = {}
        self._settings = settings
        self._topics = topics
        self._producer = producer
        self._fail = fail
        self._held: dict[Partition, Position] = {}
        self._open: OpenTransaction | None = None
        self._commit: asyncio.Task[None] | None = None
        self._pins: dict[Partition, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._batches = Pipeline(PIPELINE)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="enrich-transactions")

    async def open(self, limit: int, keep_trying: Callable[[], bool]) -> None:
        """Get the producer ready for records of up to ``limit`` bytes; before the first chunk."""
        self._producer.limit = limit
        await self._blocking(lambda: self._producer.open(keep_trying))
        self._producing = asyncio.create_task(self._produce_all())

    async def close(self) -> None:
        """Nothing is in a transaction any more, and the consumer has left the group."""
        self._producing.cancel()
        await self._blocking(self._producer.close)
        self._thread.shutdown(wait=False)

    async def run(self, chunks: AsyncIterable[Chunk]) -> None:
        """The agent's body. Nothing unexpected leaves it unseen: Faust would restart the agent behind the
        chunk.
        """
        try:
            async for chunk in chunks:
                if self.decoder is not None:
                    await self.decoder.prepare([record.value() for record in chunk.records])
                batch = self.enrich(chunk)
                await self._batches.put(batch)  # and so into a transaction, by _produce_all
        except Exception as error:
            self._fail(error)
            raise

    def enrich(self, chunk: Chunk) -> Batch:
        """Decode, track, enrich and encode the records of ``chunk``; pure but for the count of unresolved
        variations.
        """
        records = chunk.records
        headers, unreadable = _headers_among(records)
        plain = not headers and not self._settings.keep_timestamps
        values = [record.value() for record in records]
        json = self.decoder is None and self.encoder is None
        outcomes = self.transform.many(values) if json else self._recoded(values)
        for index in unreadable:
            if isinstance(outcomes[index], bytes):
                outcomes[index] = Dead("invalid_headers", "The name of a header is not UTF-8")
        sizes = [len(outcome) for outcome in outcomes if outcome.__class__ is bytes]
        keys = [record.key() for record in records]
        largest = max(sizes, default=0) + max(map(len, filter(None, keys)), default=0)
        if largest > SURELY_FITS or not plain:
            outcomes = list(map(self._sized, records, outcomes))
        if plain:
            made = [
                {"value": outcome, "key": key}
                for key, outcome in zip(keys, outcomes, strict=True)
                if outcome.__class__ is bytes
            ]
        else:
            made = [
                self._whole(record, outcome)
                for record, outcome in zip(records, outcomes, strict=True)
                if isinstance(outcome, bytes)
            ]
        dead, counts = self._rest(chunk, outcomes, len(made))
        return Batch(
            chunk.partition,
            chunk.epoch,
            chunk.start,
            chunk.end,
            made,
            plain,
            dead,
            counts,
            sum(sizes) + sum(len(letter.value or b"") for letter in dead),
        )

    def _recoded(self, values: Sequence[bytes | None]) -> list[bytes | Drop | Dead]:
        """What :meth:`Transform.many` answers, between topics that are not both JSON."""
        texts = values if self.decoder is None else self.decoder.decode(values)
        answers = iter(self.transform.many([text for text in texts if not isinstance(text, Dead)]))
        outcomes = [text if isinstance(text, Dead) else next(answers) for text in texts]
        if self.encoder is None:
            return outcomes
        encode = self.encoder.encode
        return [encode(outcome) if isinstance(outcome, bytes) else outcome for outcome in outcomes]

    def _sized(self, record: Record, outcome: bytes | Drop | Dead) -> bytes | Drop | Dead:
        if not isinstance(outcome, bytes):
            return outcome
        if size(record.key(), outcome, record.headers() or []) <= self._producer.limit - ENVELOPE:
            return outcome
        return Dead(
            "too_large", f"The enriched event has {len(outcome)} bytes, more than the output topic takes"
        )

    def _whole(self, record: Record, value: bytes) -> dict[str, Any]:
        timestamp = record.timestamp()[1] if self._settings.keep_timestamps else 0
        return {
            "value": value,
            "key": record.key(),
            "headers": record.headers() or [],
            "timestamp": max(timestamp, 0),
        }

    def _rest(
        self, chunk: Chunk, outcomes: list[bytes | Drop | Dead], enriched: int
    ) -> tuple[list[DeadLetter], Counter[tuple[str, str]]]:
        """The dead letters among ``outcomes``, and the count of each outcome."""
        dead: list[DeadLetter] = []
        counts: Counter[tuple[str, str]] = Counter({("enriched", ""): enriched})
        if enriched == len(outcomes):
            return dead, counts
        rest = [
            (record, outcome)
            for record, outcome in zip(chunk.records, outcomes, strict=True)
            if outcome.__class__ is not bytes
        ]
        for record, outcome in rest:
            if isinstance(outcome, Drop):
                counts["dropped", outcome.reason] += 1
            elif isinstance(outcome, Dead):
                counts["dead", outcome.reason] += 1
                dead.append(
                    dead_letter(
                        chunk.partition,
                        record,
                        stage="enrich",
                        reason=outcome.reason,
                        error=outcome.error,
                        limit=self._producer.limit,
                    )
                )
        return dead, counts

    # ── the transaction ────────────────────────────────────────────────────────────

    async def _produce_all(self) -> None:
        """Produce batch after batch, each into the transaction that is open by then."""
        try:
            while True:
                batch = await self._batches.get()
                if (pin := self._pins.get(batch.partition)) is not None:
                    await asyncio.wait([pin])  # repeated after a transaction it would set the offset back
                await self._ended()
                await self._produce(batch)
        except Exception as error:
            self._fail(error)

    async def _produce(self, chunk: Batch) -> None:
        """Put a batch into the open transaction if its chunk is the next of its partition; else drop or
        rewind.
        """
        held = self._held.get(chunk.partition)
        if held is None or held.epoch != chunk.epoch:
            return
        earlier = self._open.epochs.get(chunk.partition) if self._open else None
        if chunk.start != held.offset or earlier not in (None, chunk.epoch):
            log.error(
                "chunk_out_of_order", partition=str(chunk.partition), expected=held.offset, found=chunk.start
            )
            await self._start_over({chunk.partition: chunk.epoch}, OwnershipLost("a chunk is missing"))
            return
        try:
            transaction = self._begin()
            if chunk.plain:
                self._producer.produce_batch(self._topics.output, chunk.records)
            else:
                for record in chunk.records:
                    self._producer.produce(self._topics.output, **record)
            for letter in chunk.dead:
                self._producer.produce(
                    self._topics.dead_letters, key=letter.key, value=letter.value, headers=letter.headers
                )
        except NotQueued as error:
            await self._start_over({chunk.partition: chunk.epoch}, error)
            return
        reached("enrich.produced")
        self._held[chunk.partition] = replace(held, offset=chunk.end)
        transaction.epochs[chunk.partition] = chunk.epoch
        transaction.offsets[chunk.partition] = chunk.end
        transaction.outcomes.update(chunk.outcomes)
        transaction.events += len(chunk.records) + len(chunk.dead)
        transaction.bytes += chunk.bytes
        if (
            transaction.events >= self._settings.max_transaction_events
            or transaction.bytes >= self._settings.max_transaction_bytes
        ):
            self._close()

    def _begin(self) -> OpenTransaction:
        if self._open is None:
            self._producer.begin()
            self._open = OpenTransaction()
            loop = asyncio.get_running_loop()
            self._open.timer = loop.call_later(self._settings.commit_interval, self._close)
        return self._open

    def _close(self) -> None:
        """Commit the open transaction in the background; :meth:`_ended` waits for it."""
        transaction = self._detach()
        if transaction is not None:
            self._commit = asyncio.create_task(self._end(transaction))

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
            text = Committed(since=self.source.since).text()
            offsets = {p: (offset, text) for p, offset in transaction.offsets.items()}
            try:
                group = await self.source.group_metadata(transaction.epochs)
            except OwnershipLost as error:
                await self._give_up(transaction.epochs, error)
                return
            try:
                await self._blocking(lambda: self._producer.commit(offsets, group))
            except TransactionAborted as error:
                await self._aborted(transaction.epochs, error)
                return
            reached("enrich.committed")
            self._count(transaction, time.monotonic() - began)
        except Exception as error:
            self._fail(error)
        finally:
            self._commit = None

    def _count(self, transaction: OpenTransaction, seconds: float) -> None:
        metrics.TRANSACTIONS.labels("enrich", "committed").inc()
        metrics.TRANSACTION_SECONDS.labels("enrich").observe(seconds)
        for (outcome, reason), count in transaction.outcomes.items():
            metrics.EVENTS.labels(outcome, reason).inc(count)
        metrics.UNRESOLVED.inc(self.transform.unresolved)
        self.transform.unresolved = 0

    async def _aborted(self, epochs: Mapping[Partition, int], error: Exception) -> None:
        """The producer has rolled back: nothing of it is visible, and its records are read again."""
        metrics.TRANSACTIONS.labels("enrich", "aborted").inc()
        level = log.info if isinstance(error, OwnershipLost | RecordTooLarge) else log.warning
        level("transaction_aborted", error=str(error), partitions=sorted(map(str, epochs)))
        await self._rewind(epochs)

    async def _start_over(self, epochs: Mapping[Partition, int], error: Exception) -> None:
        """Roll the open transaction back, if there is one, and read ``epochs`` and all that it held again;
        nothing is produced meanwhile.
        """
        transaction = self._detach()
        if transaction is None:
            await self._rewind(epochs)
            return
        self._commit = asyncio.create_task(self._give_up({**transaction.epochs, **epochs}, error))
        await self._ended()

    async def _give_up(self, epochs: Mapping[Partition, int], error: Exception) -> None:
        try:
            try:
                await self._blocking(self._producer.abort)
            except RecordTooLarge as refused:
                error = refused
            await self._aborted(epochs, error)
        except Exception as failure:
            self._fail(failure)
        finally:
            self._commit = None

    async def _rewind(self, epochs: Mapping[Partition, int], to: int | None = None) -> None:
        self._held.update(await self.source.rewind(epochs, to))

    async def _blocking(self, function: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, function)

    # ── what the chunk source tells ────────────────────────────────────────────────────────────

    async def assigned(self, positions: Mapping[Partition, Position]) -> None:
        self._held.update(positions)
        for partition, position in positions.items():
            if position.committed is None and self.source.since is not None:
                # "latest" is decided once, also if nothing comes before the next start.
                self._pins[partition] = asyncio.create_task(self._pin(partition, position))
            if not position.readable:
                await self.missing(partition, position)

    async def _pin(self, partition: Partition, position: Position) -> None:
        """Not awaited by a rebalance callback: a commit may need polls, which wait for the callback to
        return.
        """
        try:
            text = Committed(since=self.source.since).text()
            await self.source.commit(partition, position.epoch, position.offset, text)
        except OwnershipLost as error:
            log.info("ownership_lost", error=str(error))
        except Exception as error:
            self._fail(error)
        finally:
            if self._pins.get(partition) is asyncio.current_task():
                del self._pins[partition]

    async def revoked(self, partitions: Collection[Partition]) -> None:
        await self.flush()
        self._forget(partitions)

    async def lost(self, partitions: Collection[Partition]) -> None:
        self._forget(partitions)
        await self._ended()
        if self._open is not None:
            await self._start_over({}, OwnershipLost("partitions lost"))

    def _forget(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._held.pop(partition, None)
            self.stopped.pop(partition, None)

    async def missing(self, partition: Partition, position: Position) -> None:
        """Ingest records were deleted before they were read: stop there, or go on behind them if so
        configured, once what was read before is committed.
        """
        problem = (
            f"{partition}: the topic holds the offsets {position.low} to {position.high}, but the next to "
            f"read is {position.offset}: records were deleted before they were read, or the topic was "
            "recreated"
        )
        if self._settings.on_missing_records == "continue" and position.offset < position.low:
            log.error("records_missing", problem=problem, continues_at=position.low)
            # Not awaited by the consumer's thread: what was read may need its polls to be committed.
            task = asyncio.create_task(self._go_on_behind(partition, position))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        self.stopped[partition] = problem
        log.error("partition_stopped", problem=problem, ways_out='enrich.on_missing_records = "continue"')
        await self.source.pause(partition, position.epoch)

    async def _go_on_behind(self, partition: Partition, position: Position) -> None:
        try:
            while (held := self._held.get(partition)) is not None and held.epoch == position.epoch:
                if held.offset >= position.offset:
                    await self.flush()
                    await self._rewind({partition: position.epoch}, to=position.low)
                    return
                await asyncio.sleep(CATCH_UP_SECONDS)  # its chunks are in the channel or the pipeline
        except OwnershipLost as error:
            log.info("ownership_lost", error=str(error))
        except Exception as error:
            self._fail(error)

    async def flush(self) -> None:
        """Commit what is in the open transaction; returns when it has ended, one way or the other."""
        await self._ended()
        self._close()
        await self._ended()


def _headers_among(records: Sequence[Record]) -> tuple[bool, Collection[int]]:
    """Whether any of ``records`` has headers, and the places of those whose headers cannot be read. Seldom is
    there one, so it is looked for in one go, and only then one by one.
    """
    rest = iter(records)
    try:
        return any(map(_headers, rest)), ()
    except SystemError:
        refused = len(records) - 1 - length_hint(rest)
        forget_headers(records[refused])
    later = range(refused + 1, len(records))
    return True, [refused, *(index for index in later if headers_of(records[index]) is None)]
