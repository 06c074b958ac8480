"""The transactions of one sink: dead letters, what a transactional sink delivers, and the offset."""

import asyncio
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from flagstream.chunk import Headers, Partition
from flagstream.dead_letters import DeadLetter, fit
from flagstream.errors import TransactionAborted, TransactionUncertain
from flagstream.export.phases import Event
from flagstream.export.restarts import Restart, StartAgain
from flagstream.export.sink_calls import FIRST_PAUSE, LONGEST_PAUSE, SinkCalls
from flagstream.kafka.refusals import TopicRefusesAll, find_refused
from flagstream.kafka.tenure import Tenure
from flagstream.kafka.topics import TopicFacts
from flagstream.kafka.transactions import NotQueued, TransactionalProducer, TransactionRefused
from flagstream.operate import metrics
from flagstream.operate.dead_letters import DeadLetterLog, summary
from flagstream.operate.health import Problem
from flagstream.operate.retry import Backoff
from flagstream.sinks.kafka.own_cluster import TopicSink
from flagstream.sinks.protocol import ConfiguredTransactionalSink, Sink, Transaction

log = structlog.get_logger(__name__)


class RecordedTransaction:
    """A :class:`Transaction` that only notes what would be produced: topic, key and value."""

    def __init__(self) -> None:
        self.produced: list[tuple[str, bytes | None, bytes | None]] = []

    def produce(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Note the record."""
        self.produced.append((topic, key, value))


class WindowTransactions:
    """Runs one transaction at a time, in a thread of its own, for all partitions of one sink.

    ``dead_letters`` is the topic of dead letters. ``committed`` is called with the partition and the offset
    after each commit. ``calls`` shows transactions that fail, and ends their pauses when a person asks for
    it. A sink that delivers in transactions learns here what its topic does not take.
    """

    def __init__(
        self,
        name: str,
        sink: Sink[Any] | ConfiguredTransactionalSink[Any],
        producer: TransactionalProducer,
        dead_letters: str,
        calls: SinkCalls,
        committed: Callable[[Partition, int], None],
    ) -> None:
        self.dead_letters = dead_letters
        self._name = name
        self._sink = sink if isinstance(sink, ConfiguredTransactionalSink) else None
        self._producer = producer
        self._calls = calls
        self._committed = committed
        self._open = False
        self._uncertain: dict[Partition, tuple[int, str]] = {}
        """Transactions whose outcome was not known: up to which offset, and why. Shown until something of the
        partition is seen to be committed up to there."""
        self._one_at_a_time = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"dead-letters-{name}")
        self._letters = DeadLetterLog(sink=name)
        self._log = log.bind(sink=name)

    @property
    def limit(self) -> int:
        """Bytes of the largest record that the producer sends."""
        return self._producer.limit

    @property
    def opens_early(self) -> bool:
        """Whether the producer is opened when the stage is, not before the first transaction. That ends at
        once what a predecessor left open; readers would wait for its time-out.
        """
        return self._producer.stable or self._sink is not None

    def learn_limits(self, facts: TopicFacts) -> int:
        """Learn what the topics take. Returns the bytes of the largest record. Called before :meth:`open`."""
        topics = [self.dead_letters]
        if self._sink is not None:
            topics.append(self._sink.topic)
            self._sink.limit = facts.limit(*topics)
        self._producer.limit = facts.limit(*topics)
        return self._producer.limit

    async def open(self) -> None:
        """Open the producer, unless it is open."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open_producer)

    def _open_producer(self) -> None:
        if not self._open:
            self._producer.open()
            self._open = True

    async def idle(self) -> None:
        """Return when the transaction that is under way has ended. Awaited before a partition is rewound: the
        generation of the group stays the same, so nothing else would keep Kafka from committing it later.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, _nothing)

    def certain(self, partition: Partition, offset: int) -> None:
        """Note that what lies before ``offset`` is committed."""
        if partition in self._uncertain and offset >= self._uncertain[partition][0]:
            del self._uncertain[partition]

    def forget(self, partition: Partition) -> None:
        """Forget what was uncertain of ``partition``, which is not ours any more."""
        self._uncertain.pop(partition, None)

    def problems(self, leaving_out: Container[Partition]) -> Iterator[Problem]:
        """Yield what is wrong with transactions, but for those of some partitions."""
        for partition, (_, text) in self._uncertain.items():
            if partition not in leaving_out:
                about = f"{partition}: a transaction did not come to an end, and is repeated if it failed"
                yield Problem("transaction", f"{about}: {text}", str(partition))
        yield from self._letters.problems()
        yield from self._producer.problems()

    def close(self) -> None:
        """Start no further transaction. One that hangs is not waited for."""
        self._letters.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

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

        Raises OwnershipLost, and StartAgain where the outcome is not known or the records have to be encoded
        again.
        """
        partition = tenure.partition
        loop = asyncio.get_running_loop()
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            async with self._one_at_a_time:  # a partition that has to wait lets others go first
                group = await tenure.group_metadata()
                self._calls.status.begun("deliver", partition, loop.time())
                try:
                    await loop.run_in_executor(
                        self._thread, self._transaction, partition, produce, letters, offset, metadata, group
                    )
                    break
                except TransactionUncertain as error:
                    self._uncertain[partition] = offset, str(error)
                    # What is committed shows whether the transaction was.
                    raise StartAgain(Event.ENCODE_AGAIN, Restart(), str(error)) from error
                except TransactionAborted as error:
                    pause = self._aborted(partition, error, backoff)
                    if self._takes_less() or await self._refuses_some(error, partition, offset, produce):
                        # Its records are encoded again, without those.
                        raise StartAgain(Event.ENCODE_AGAIN, Restart(), str(error)) from error
            await self._calls.pause(pause)
        self._calls.status.over("deliver", partition)
        if isinstance(self._sink, TopicSink):
            self._sink.committed(partition, offset)
        tenure.committed_in_transaction(offset)
        self._committed(partition, offset)
        metrics.TRANSACTIONS.labels(f"sink.{self._name}", "committed").inc()
        for letter in letters:
            metrics.REJECTED.labels(self._name, letter.reason).inc()
        self._letters.tell(summary(letters))

    def _transaction(
        self,
        partition: Partition,
        produce: Callable[[Transaction], None],
        letters: Sequence[DeadLetter],
        offset: int,
        metadata: str,
        group: Any,
    ) -> None:
        self._open_producer()
        try:
            self._producer.begin()
            produce(self._producer)
            for letter in (fit(letter, self._producer.limit) for letter in letters):
                self._producer.produce(
                    self.dead_letters, key=letter.key, value=letter.value, headers=letter.headers
                )
        except NotQueued as error:
            self._producer.abort()
            raise TransactionAborted(str(error)) from error
        self._producer.commit({partition: (offset, metadata)}, group)

    def _aborted(self, partition: Partition, error: TransactionAborted, backoff: Backoff) -> float:
        """Report the aborted transaction, and return the seconds until the next try."""
        metrics.TRANSACTIONS.labels(f"sink.{self._name}", "aborted").inc()
        pause = backoff.next_pause()
        now = asyncio.get_running_loop().time()
        self._calls.status.failed("deliver", partition, "transaction", f"transaction: {error}", now, pause)
        self._log.warning("transaction_aborted", error=str(error), retry_in=round(pause, 2))
        return pause

    async def _refuses_some(
        self,
        error: TransactionAborted,
        partition: Partition,
        offset: int,
        produce: Callable[[Transaction], None],
    ) -> bool:
        """Return whether the topic of a Kafka sink refuses some of the records for what they are. The sink
        learns which, and rejects them from now on, up to ``offset``. One search may not find all of them.
        """
        sink = self._sink
        if not isinstance(sink, TopicSink) or not isinstance(error, TransactionRefused):
            return False
        if not error.of_a_record or error.untimely:  # if a time of sending is refused, a clock is wrong
            return False
        window = RecordedTransaction()
        produce(window)
        made = [(key, value) for topic, key, value in window.produced if topic == sink.topic]
        records = [{"key": key, "value": value} for key, value in made]

        def takes(some: Sequence[int]) -> bool:
            return self._producer.takes(sink.topic, [records[index] for index in sorted(some)])

        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._thread, find_refused, len(records), takes
            )
        except (TopicRefusesAll, TransactionAborted) as failure:
            self._log.warning("search_failed", error=str(failure))
            return False
        refused = {(made[index][0] or b"", made[index][1] or b""): str(error) for index in found}
        sink.refuse(partition, offset, refused)
        return bool(found)

    def _takes_less(self) -> bool:
        """Return whether the topic of a transactional sink takes smaller records than the sink knows."""
        sink = self._sink
        if sink is None or sink.limit <= self._producer.limit:
            return False
        sink.limit = self._producer.limit
        return True


def _nothing() -> None:
    """Come back when what was asked of the thread before is done."""
