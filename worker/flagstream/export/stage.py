"""The export stage of one sink: spreads the chunks of the output topic over its partitions, each with windows
of its own.
"""

import asyncio
import traceback
from collections.abc import AsyncIterable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from flagstream.chunk import Chunk, Headers, Partition, Position
from flagstream.config.settings import TopicSettings
from flagstream.dead_letters import DeadLetter, fit
from flagstream.errors import (
    ObjectConflict,
    OwnershipLost,
    PartitionStopped,
    SinkError,
    SinkRefused,
    SinkRefusesAll,
    SinkUnavailable,
    TransactionAborted,
    TransactionUncertain,
)
from flagstream.export.budget import MemoryBudget
from flagstream.export.denials import Denials
from flagstream.export.partition import Condemned, Destination, PartitionExport
from flagstream.export.refused import DeadLetterSink
from flagstream.export.retry_status import HANGS, HINTS, UNDER_WAY_SECONDS, RetryStatus, called
from flagstream.export.takeover import unit_of
from flagstream.export.windows import Limits
from flagstream.kafka.gaps import describe_gap
from flagstream.kafka.refusals import TopicRefusesAll, find_refused
from flagstream.kafka.tenure import Tenure
from flagstream.kafka.topic_id import TopicIdentity
from flagstream.kafka.topics import TopicFacts
from flagstream.kafka.transactions import NotQueued, TransactionalProducer, TransactionRefused
from flagstream.operate import metrics
from flagstream.operate.dead_letters import DeadLetterLog, summary
from flagstream.operate.health import Problem
from flagstream.operate.retry import Backoff
from flagstream.operate.stopped import StoppedPartitions
from flagstream.operate.tasks import Tasks
from flagstream.sinks.kafka.own_cluster import TopicSink
from flagstream.sinks.protocol import ConfiguredTransactionalSink, Sink, Transaction
from flagstream.sinks.settings import SinkSettings
from flagstream.topic_formats.protocol import Decoder
from flagstream.units import format_seconds

log = structlog.get_logger(__name__)
T = TypeVar("T")

DELIVERIES = 8
"""Calls of the sink at a time: threads that mostly wait for the network."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds between tries of a failing sink: doubled each time, with jitter, so that a fleet does not knock as
one.
"""


class RecordedTransaction:
    """A :class:`Transaction` that only notes what would be produced: topic, key and value."""

    def __init__(self) -> None:
        self.produced: list[tuple[str, bytes | None, bytes | None]] = []

    def produce(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Note the record."""
        self.produced.append((topic, key, value))


class ExportStage:
    """Satisfies :class:`flagstream.kafka.tenure.Stage` and :class:`flagstream.export.partition.Kafka`.

    ``producer`` writes the dead letters and what a transactional sink delivers; for dead letters alone it is
    opened when the first one is to be written, unless its id is stable. ``revoke_budget``: seconds that a
    revoke may take. ``fail`` is told an error that ends the process.
    """

    def __init__(
        self,
        name: str,
        sink: Sink[Any] | ConfiguredTransactionalSink[Any],
        settings: SinkSettings,
        topics: TopicSettings,
        budget: MemoryBudget,
        producer: TransactionalProducer,
        *,
        revoke_budget: float,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.decoder: Decoder | None = None
        """Of an output topic that is not JSON; set before :meth:`open`."""
        self.fail = fail
        self._status = RetryStatus()
        self._denials = Denials(settings.refused_after)
        self._to: Destination
        self._identity: TopicIdentity | None = None
        self._name = name
        self._sink = sink
        self._settings = settings
        self._topics = topics
        self._budget = budget
        self._producer = producer
        self._producer_open = False
        self._revoke_budget = revoke_budget
        self._tenures: dict[Partition, Tenure] = {}
        self._exports: dict[Partition, PartitionExport] = {}
        self._missing: dict[Partition, str] = {}
        self._uncertain: dict[Partition, tuple[int, str]] = {}
        """Transactions whose outcome was not known: up to which offset, and why. Shown until something of the
        partition is seen to be committed up to there."""
        self._transacting = asyncio.Lock()
        self._threads = ThreadPoolExecutor(DELIVERIES, thread_name_prefix=f"sink-{name}")
        self._transactions = ThreadPoolExecutor(1, thread_name_prefix=f"dead-letters-{name}")
        self._tasks = Tasks(fail)
        self._stops = StoppedPartitions(self._look_again, lambda: asyncio.get_running_loop().time())
        self._opened = asyncio.Event()
        self._hurry = asyncio.Event()
        self._dead_letters = DeadLetterLog(sink=name)
        self._log = log.bind(sink=name)

    async def open(self, facts: TopicFacts, topic_id: Callable[[], str]) -> None:
        """Get ready to join the group, and begin to open the sink. Partitions that come meanwhile are held:
        of each the first chunk is read, so that its lag and its age are known, and then it is paused.
        ``topic_id`` asks for the output topic's id: see :class:`TopicIdentity`.
        """
        self._identity = TopicIdentity(topic_id)
        sink, topics = self._sink, [self._topics.dead_letters]
        if isinstance(sink, ConfiguredTransactionalSink):
            topics.append(sink.topic)
            sink.limit = facts.limit(*topics)
        self._producer.limit = limit = facts.limit(*topics)
        stage, dead_letters = f"sink.{self._name}", self._topics.dead_letters
        self._to = Destination(
            self._name,
            self._sink,
            self._settings,
            Limits(self._settings.max_events, self._settings.max_bytes, limit, self._settings.events),
            lambda error: DeadLetterSink(
                sink.begin, dead_letters, stage, error, lambda: self._producer.limit
            ),
            self.decoder,
            unit_of(sink),
        )
        if self._producer.stable or isinstance(sink, ConfiguredTransactionalSink):
            # ends at once what a predecessor left open; readers would wait for its time-out
            self._start(self._open_transactions())
        if not isinstance(sink, ConfiguredTransactionalSink):
            self._start(self._open_sink(sink))

    async def _open_transactions(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._transactions, self._open_producer)
        if isinstance(self._sink, ConfiguredTransactionalSink):
            self._opened.set()

    async def _open_sink(self, sink: Sink[Any]) -> None:
        await self._until_done("open", sink.open)
        self._opened.set()

    def _open_producer(self) -> None:
        if not self._producer_open:
            self._producer.open()
            self._producer_open = True

    async def run(self, chunks: AsyncIterable[Chunk]) -> None:
        """The agent's body. Nothing unexpected leaves it unseen: Faust would restart the agent behind the
        chunk.
        """
        try:
            async for chunk in chunks:
                if self.decoder is not None:
                    await self.decoder.prepare([record.value() for record in chunk.records])
                if export := self._exports.get(chunk.partition):
                    export.accept(chunk)
                else:
                    chunk.weight.release()
                del chunk
        except Exception as error:
            self.fail(error)
            raise

    @property
    def stopped(self) -> dict[Partition, str]:
        """Partitions that wait for a person to act, with the reason."""
        return self._stops.problems | self._stopped_now

    @property
    def _stopped_now(self) -> dict[Partition, str]:
        return self._missing | {p: e.stopped for p, e in self._exports.items() if e.stopped}

    def problems(self) -> Iterator[Problem]:
        """Yield what keeps the sink from taking windows. One truth a partition: of one that has stopped that
        is all there is to say. On the event loop.
        """
        stopped = self.stopped
        for partition, text in stopped.items():
            yield Problem("partition_stopped", text, str(partition))
        yield from self._status.problems(asyncio.get_running_loop().time(), leaving_out=stopped)
        for partition, (_, text) in self._uncertain.items():
            if partition not in stopped:
                about = f"{partition}: a transaction did not come to an end, and is repeated if it failed"
                yield Problem("transaction", f"{about}: {text}", str(partition))
        yield from self._dead_letters.problems()
        yield from self._producer.problems()
        if self._identity is not None and self._identity.problem:
            yield Problem("kafka", self._identity.problem)
        if self.decoder is not None and self.decoder.trouble:
            yield Problem("registry", self.decoder.trouble)

    def under_way(self) -> Mapping[Partition, float]:
        """Return for how many seconds the call of the sink that each partition waits for is under way."""
        found = self._status.under_way(asyncio.get_running_loop().time())
        everybody = found.pop(None, 0.0)
        return {p: max(everybody, found.get(p, 0.0)) for p in (*self._exports, *found) if p is not None}

    def look(self) -> None:
        """Do and log what only time brings; called every second or so, on the event loop."""
        self._stops.follow(self._stopped_now)
        for call in self._status.slow(asyncio.get_running_loop().time()):
            self._log.warning("delivery_under_way", what=call, seconds=UNDER_WAY_SECONDS, hint=HANGS)

    def look_now(self) -> None:
        """Try at once what waits to be tried again: a person says that it is mended."""
        self._stops.follow(self._stopped_now)
        self._stops.look_now()
        self._hurry.set()
        self._hurry = asyncio.Event()

    def _look_again(self, partition: Partition) -> None:
        export = self._exports.get(partition)
        if export is not None and export.busy:
            return  # what it holds may be in the topic no longer
        if export is not None and export.stopped:
            export.begin_again()
        elif (tenure := self._tenures.get(partition)) is not None:
            self.restart(tenure)

    async def drain(self, deadline: float) -> None:
        """Close all windows and deliver what fits until ``deadline`` (event loop time); the rest is left to
        its plan.
        """
        await self._finish(list(self._exports), "shutdown", deadline)

    async def close(self) -> None:
        """Close the sink; after the consumer has left the group. A delivery that hangs is not waited for."""
        self._dead_letters.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._transactions.shutdown(wait=False, cancel_futures=True)
        if not isinstance(self._sink, ConfiguredTransactionalSink) and self._opened.is_set():
            await asyncio.to_thread(self._sink.close)

    # ── what the chunk source tells ────────────────────────────────────────────────────────────

    async def assigned(self, tenures: Collection[Tenure]) -> None:
        for tenure in tenures:
            self._tenures[tenure.partition] = tenure
            if not tenure.position.readable:
                await self.records_missing(tenure, tenure.position)
            else:
                self._begin(tenure)

    async def revoked(self, partitions: Collection[Partition]) -> None:
        await self._finish(partitions, "revoke", asyncio.get_running_loop().time() + self._revoke_budget)

    async def lost(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._let_go(partition)

    async def records_missing(self, tenure: Tenure, position: Position) -> None:
        """What is held already is delivered first: Kafka has it no longer. Then the partition stops, or goes
        on behind what is gone.
        """
        partition = tenure.partition
        export = self._exports.get(partition)
        found = describe_gap(
            partition,
            position,
            doing="exported",
            group=tenure.group,
            setting=f"sinks.{self._name}.on_missing_records",
        )
        # Where nothing was overtaken the topic was cut: other records may get our offsets.
        if export is not None and (export.epoch != tenure.epoch or not found.overtaken):
            self._drop(partition)
            export = None
        if export is not None and export.overtaken:
            return
        goes_on = self._settings.on_missing_records == "continue" and found.overtaken
        told = self._log.bind(partition=str(partition), problem=found.problem)
        if goes_on:
            told.error("records_missing", continues_at=position.low)
        else:
            self._missing[partition] = found.problem
            told.error("partition_stopped", ways_out=found.ways_out)
        if export is not None:
            self._start(self._deliver_held(export, tenure, position, goes_on))
            await tenure.pause()
        elif goes_on:
            self.restart(tenure, to=position.low)
        else:
            await tenure.pause()

    async def _deliver_held(
        self, export: PartitionExport, tenure: Tenure, position: Position, goes_on: bool
    ) -> None:
        await export.deliver_held(position.offset)
        # It may be another's by now, or wait for a person: to begin anew would step over what it stopped at.
        if goes_on and not export.stopped and export.epoch == tenure.epoch:
            self.restart(tenure, to=position.low)

    def _begin(self, tenure: Tenure, condemned: Condemned | None = None) -> None:
        partition = tenure.partition
        self._drop(partition)
        self._certain(partition, tenure.position.offset)
        self._exports[partition] = PartitionExport(self._to, tenure, self, self._budget, condemned)

    def _drop(self, partition: Partition) -> None:
        self._missing.pop(partition, None)
        self._status.forget(partition)
        if export := self._exports.pop(partition, None):
            export.drop()

    async def _finish(self, partitions: Collection[Partition], reason: str, deadline: float) -> None:
        ending = [export for p in partitions if (export := self._exports.get(p))]
        await asyncio.gather(*(export.finish(reason, deadline) for export in ending))
        for partition in partitions:
            self._let_go(partition)  # also one that was begun anew meanwhile

    def _let_go(self, partition: Partition) -> None:
        self._drop(partition)
        self._tenures.pop(partition, None)
        self._uncertain.pop(partition, None)
        self._denials.over(partition)
        self._stops.forget(partition)

    # ── what a partition asks ────────────────────────────────────────────────────────────

    async def topic_id(self) -> str:
        assert self._identity is not None  # no partition comes before open()
        return await self._identity.now()

    def committed(self, partition: Partition, offset: int) -> None:
        """Whatever stopped the partition did so at its committed offset; it is over beyond that."""
        self._certain(partition, offset)
        export = self._exports.get(partition)
        if export is not None and not export.stopped and offset > export.origin:
            self._stops.forget(partition)

    def _certain(self, partition: Partition, offset: int) -> None:
        """What lies before ``offset`` is committed."""
        if partition in self._uncertain and offset >= self._uncertain[partition][0]:
            del self._uncertain[partition]

    def give_back(self) -> None:
        """Drop records for which there is no room in windows for now: they keep others from being fetched."""
        for export in self._exports.values():
            export.give_back()

    def restart(self, tenure: Tenure, *, condemned: Condemned | None = None, to: int | None = None) -> None:
        """Begin the partition again at its committed offset (or at ``to``), in a new tenure."""
        self._drop(tenure.partition)

        async def restart() -> None:
            # A transaction that is under way in the thread would be committed behind our back: the generation
            # of the group stays the same.
            await asyncio.get_running_loop().run_in_executor(self._transactions, _nothing)
            begun = await tenure.rewind(to)
            self._tenures[begun.partition] = begun
            if begun.position.readable or to is not None:
                self._begin(begun, condemned)
            else:
                await self.records_missing(begun, begun.position)

        self._start(restart())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Work on a partition that nobody waits for."""
        self._tasks.start(f"sink {self._name}", work)

    async def persist(self, what: str, tenure: Tenure, function: Callable[[], T]) -> T:
        """Call the sink in a thread until it succeeds, backing off for as long as it takes.

        Raises ObjectConflict and PartitionStopped; SinkRefused for a delivery when refused windows are to
        become dead letters.
        """
        if not self._opened.is_set():
            if export := self._exports.get(tenure.partition):
                await export.commit_start(asked=False)  # this process may end before the sink opens
            await self._opened.wait()
        return await self._until_done(what, function, tenure)

    async def in_thread(self, function: Callable[[], None]) -> None:
        """Work that would hold up the event loop, and that nothing outside can keep from succeeding."""
        await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def transact(
        self,
        tenure: Tenure,
        produce: Callable[[Transaction], None],
        letters: list[DeadLetter],
        offset: int,
        metadata: str,
    ) -> None:
        """Produce records, dead letters and the offset as one transaction; repeated while the partition is
        held.

        Raises OwnershipLost.
        """
        partition = tenure.partition

        def transaction(group: object) -> None:
            self._open_producer()
            try:
                self._producer.begin()
                produce(self._producer)
                for letter in (fit(letter, self._producer.limit) for letter in letters):
                    self._producer.produce(
                        self._topics.dead_letters, key=letter.key, value=letter.value, headers=letter.headers
                    )
            except NotQueued as error:
                self._producer.abort()
                raise TransactionAborted(str(error)) from error
            self._producer.commit({partition: (offset, metadata)}, group)

        loop = asyncio.get_running_loop()
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            async with self._transacting:  # one transaction at a time; who has to wait lets others go first
                group = await tenure.group_metadata()
                self._status.begun("deliver", partition, loop.time())
                try:
                    await loop.run_in_executor(self._transactions, transaction, group)
                    break
                except TransactionUncertain as error:
                    self._uncertain[partition] = offset, str(error)
                    self.restart(tenure)  # what is committed tells whether it was
                    raise OwnershipLost(str(error)) from error
                except TransactionAborted as error:
                    metrics.TRANSACTIONS.labels(f"sink.{self._name}", "aborted").inc()
                    pause = backoff.next_pause()
                    text = f"transaction: {error}"
                    self._status.failed("deliver", partition, "transaction", text, loop.time(), pause)
                    self._log.warning("transaction_aborted", error=str(error), retry_in=round(pause, 2))
                    if self._takes_less() or await self._refuses_some(error, partition, offset, produce):
                        self.restart(tenure)  # its records are encoded again, without those
                        raise OwnershipLost(str(error)) from error
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), pause)
        self._status.over("deliver", partition)
        if isinstance(self._sink, TopicSink):
            self._sink.committed(partition, offset)
        tenure.committed_in_transaction(offset)
        self.committed(partition, offset)
        metrics.TRANSACTIONS.labels(f"sink.{self._name}", "committed").inc()
        for letter in letters:
            metrics.REJECTED.labels(self._name, letter.reason).inc()
        self._dead_letters.tell(summary(letters))

    async def _refuses_some(
        self,
        error: TransactionAborted,
        partition: Partition,
        offset: int,
        produce: Callable[[Transaction], None],
    ) -> bool:
        """Whether the topic of a Kafka sink refuses some of the records for what they are: the sink is told
        which, and rejects them from now on, up to ``offset``. One search may not find all of them.
        """
        sink = self._sink
        if not isinstance(sink, TopicSink) or not isinstance(error, TransactionRefused):
            return False
        if not error.of_a_record or error.untimely:  # where a time of sending is refused, a clock is wrong
            return False
        window = RecordedTransaction()
        produce(window)
        made = [(key, value) for topic, key, value in window.produced if topic == sink.topic]
        records = [{"key": key, "value": value} for key, value in made]

        def takes(some: Sequence[int]) -> bool:
            return self._producer.takes(sink.topic, [records[index] for index in sorted(some)])

        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._transactions, find_refused, len(records), takes
            )
        except (TopicRefusesAll, TransactionAborted) as failure:
            self._log.warning("search_failed", error=str(failure))
            return False
        refused = {(made[index][0] or b"", made[index][1] or b""): str(error) for index in found}
        sink.refuse(partition, offset, refused)
        return bool(found)

    def _takes_less(self) -> bool:
        """Whether the topic of a transactional sink takes smaller records than the sink was told."""
        sink = self._sink
        if not isinstance(sink, ConfiguredTransactionalSink) or sink.limit <= self._producer.limit:
            return False
        sink.limit = self._producer.limit
        return True

    async def _until_done(self, what: str, function: Callable[[], T], tenure: Tenure | None = None) -> T:
        partition = None if tenure is None else tenure.partition
        loop = asyncio.get_running_loop()
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            await self._until_fresh(tenure)
            try:
                began = loop.time()
                self._status.begun(what, partition, began)
                answer = await loop.run_in_executor(self._threads, function)
            except (ObjectConflict, PartitionStopped):
                self._status.over(what, partition)
                raise
            except Exception as failure:
                error = failure if isinstance(failure, SinkError) else _unforeseen(failure)
                if what == "deliver" and partition is not None and self._condemns(partition, error):
                    metrics.DELIVERY_FAILURES.labels(self._name, "refused").inc()
                    raise
                wait = backoff.next_pause()
                if isinstance(error, SinkUnavailable) and error.retry_after is not None:
                    wait = error.retry_after
                self._failed(what, partition, error, wait)
            else:
                if what == "deliver" and partition is not None:
                    self._denials.over(partition)
                self._succeeded(what, partition, loop.time() - began)
                took = round(loop.time() - began, 3)
                self._log.debug("sink_called", what=called(what, partition), seconds=took)
                return answer
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), wait)

    def _condemns(self, partition: Partition, error: SinkError) -> bool:
        """Whether the window that was refused with ``error`` becomes dead letters."""
        if not isinstance(error, SinkRefused) or isinstance(error, SinkRefusesAll):
            self._denials.over(partition)
            return False
        counts = not error.denied or self._denials.counts(partition, asyncio.get_running_loop().time())
        return counts and self._settings.on_refused == "dead_letter"

    async def _until_fresh(self, tenure: Tenure | None) -> None:
        """No delivery starts while the group may have given our partitions away."""
        while tenure is not None and not tenure.fresh:  # noqa: ASYNC110  # a clock, nothing sets it
            await asyncio.sleep(0.05)

    def _failed(self, what: str, partition: Partition | None, error: SinkError, wait: float) -> None:
        kind = "refused" if isinstance(error, SinkRefused) else "unavailable"
        text = str(error)
        settings = self._settings
        if isinstance(error, SinkRefused) and error.denied and settings.on_refused == "dead_letter":
            text += f"; windows become dead letters if this lasts {format_seconds(settings.refused_after)}"
        now = asyncio.get_running_loop().time()
        self._status.failed(what, partition, f"sink_{kind}", f"{kind}: {text}", now, wait)
        metrics.DELIVERY_FAILURES.labels(self._name, kind).inc()
        facts = {"what": called(what, partition), "kind": kind, "error": text, "retry_in": round(wait, 2)}
        facts["hint"] = HINTS[f"sink_{kind}"]
        if kind == "refused":  # a person has to act
            self._log.error("sink_failed", **facts)
        else:
            self._log.warning("sink_failed", **facts)

    def _succeeded(self, what: str, partition: Partition | None, seconds: float) -> None:
        if self._status.over(what, partition):
            self._log.info("sink_recovered", what=called(what, partition))
        if what == "deliver":
            metrics.DELIVERY_SECONDS.labels(self._name).observe(seconds)


def _unforeseen(failure: Exception) -> SinkUnavailable:
    """Names the error and where it was raised: its text is a library's, which may quote a secret."""
    at = traceback.extract_tb(failure.__traceback__)[-1]
    return SinkUnavailable(
        f"{type(failure).__name__}, which the sink did not foresee, at {at.filename}:{at.lineno}"
    )


def _nothing() -> None:
    """Comes back when what was asked of the thread before is done."""
