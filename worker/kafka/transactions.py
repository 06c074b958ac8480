"""The transactional producer of a stage, with every error of librdkafka turned into what the caller has to
do.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from worker.chunk import Headers, Partition
from worker.crashpoints import reached
from worker.errors import ExitCode, Fatal, FlagstreamError, TransactionAborted, TransactionUncertain

log = structlog.get_logger(__name__)

TRY_SECONDS = 5.0
"""Bound of one try of a transactional call; a retriable one is repeated until ``deadline``."""
HANG_SECONDS = 15
"""After which a call with a time-out of ``TRY_SECONDS`` is given up."""
DEFAULT_LIMIT = 1_000_000
"""librdkafka's message.max.bytes, a little below the 1,048,588 bytes that a broker's topic takes by
default.
"""


SMALLEST_LIMIT = 2_000
"""No topic is taken to hold less; below it, dead letters would lose their headers."""
LARGEST_LIMIT = 1_000_000_000
"""The most that librdkafka's message.max.bytes takes; max.message.bytes of a topic goes up to 2^31 - 1."""


class NotQueued(FlagstreamError):
    """The open transaction cannot take the record; it has to be aborted."""


class RecordTooLarge(TransactionAborted):
    """The broker refused a batch as too large for its topic; the producer was opened again with half the
    limit.
    """


class TransactionalProducer:
    """One producer, one transaction at a time. Blocking: called from a thread of the stage's own, one call at
    a time.

    ``limit`` is the largest record, in bytes, that the topics take; larger ones must not be handed in.
    ``stable``: the transactional.id is the same after a restart, so opening ends what the predecessor left.
    ``deadline``
    (seconds) is how long a call that may be repeated is repeated.
    """

    def __init__(self, properties: Mapping[str, Any], *, stable: bool, deadline: float = 60.0) -> None:
        self._properties = dict(properties)
        self._deadline = deadline
        self.stable = stable
        self._broken = False
        self._too_large = False
        self._name = str(properties["transactional.id"])
        self._log = log.bind(transactional_id=self._name)
        self.limit = DEFAULT_LIMIT

    def open(self, keep_trying: Callable[[], bool] = lambda: True) -> None:
        """Register with the transaction coordinator, which ends whatever this id left open before.

        Tried until the coordinator answers or ``keep_trying`` says no. Raises Fatal.
        """
        self._keep_trying = keep_trying
        self._connect()
        while keep_trying():
            try:
                _bounded(lambda: self._producer.init_transactions(TRY_SECONDS))
                return
            except _Hangs:
                self._connect()
            except KafkaException as failure:
                error = failure.args[0]
                self._raise_if_fatal(error)
                if not error.retriable():
                    raise Fatal(ExitCode.KAFKA, f"{self._name}: {error.name()}: {error.str()}") from failure
                self._log.warning("transactions_not_ready", error=f"{error.name()}: {error.str()}")

    def _connect(self) -> None:
        self._producer = Producer(
            {
                **self._properties,
                # No delivery callback: each would want the interpreter for itself, 100,000 times a commit.
                "message.max.bytes": self.limit,
            },
            logger=logging.getLogger("librdkafka"),
        )

    def begin(self) -> None:
        """Start a transaction. Local, does not block."""
        self._broken = self._too_large = False
        try:
            self._producer.begin_transaction()
        except KafkaException as failure:
            error = failure.args[0]
            self._raise_if_fatal(error)
            raise Fatal(ExitCode.KAFKA, f"{self._name}: {error.name()}: {error.str()}") from failure

    def release_delivered(self) -> None:
        """Let go of the records that are delivered; they stay in memory otherwise, until the commit."""
        self._producer.poll(0)

    def produce_batch(self, topic: str, records: list[dict[str, Any]]) -> None:
        """Add records (``value`` and ``key``), partitioned by key. Does not block.

        Raises NotQueued; the caller aborts.
        """
        try:
            queued = self._producer.produce_batch(topic, records)
        except (KafkaException, BufferError) as failure:
            raise NotQueued(f"records not queued: {failure}") from failure
        if queued != len(records):
            errors = [record["_error"] for record in records if "_error" in record]
            self._broken = any(error.code() == KafkaError._STATE for error in errors)
            texts = sorted(set(map(str, errors)))
            raise NotQueued(f"{len(records) - queued} records not queued: {texts[:3]}")

    def produce(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers, timestamp: int = 0
    ) -> None:
        """Add one record. ``timestamp``: ms since the epoch, 0 for the time of sending.

        Blocks for a while where the client's queue is full. Raises NotQueued; the caller aborts.
        """
        give_up = time.monotonic() + TRY_SECONDS
        while True:
            try:
                self._producer.produce(
                    topic, value, key, headers=cast(Any, headers) or None, timestamp=timestamp
                )
                return
            except BufferError as failure:
                self._producer.poll(0.1)  # delivery reports keep their place in the queue until they are read
                if time.monotonic() > give_up:
                    raise NotQueued("the client's queue stays full") from failure
            except KafkaException as failure:
                self._broken = failure.args[0].code() == KafkaError._STATE
                raise NotQueued(f"record not queued: {failure}") from failure

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], group_metadata: Any) -> None:
        """Commit records and ``offsets`` (next offset and metadata text of each partition) as one.

        Returns when the commit is certain. Raises TransactionAborted when the transaction was rolled back,
        TransactionUncertain when it has ended and only the committed offsets tell how, Fatal when the
        producer is fenced.
        """
        targets = [TopicPartition(p.topic, p.index, offset, text) for p, (offset, text) in offsets.items()]
        producer = self._producer
        self._call(lambda: producer.send_offsets_to_transaction(targets, group_metadata, TRY_SECONDS))
        reached("transaction.offsets_sent")
        self._call(lambda: producer.commit_transaction(TRY_SECONDS), otherwise=TransactionUncertain)
        producer.poll(0)

    def abort(self) -> None:
        """Roll the open transaction back. Raises RecordTooLarge where the broker had refused a batch as too
        large, Fatal where rolling back is impossible.
        """
        if self._broken:
            self._find_out()
        producer = self._producer
        try:
            self._call(lambda: producer.abort_transaction(TRY_SECONDS), aborting=True)
        except TransactionAborted:
            self._log.info("transaction_abandoned")  # and aborted by registering anew
        producer.poll(0)
        if self._too_large:
            raise self._shrink("a topic refused a batch as too large")

    def _find_out(self) -> None:
        """A transaction that a failed delivery broke takes no more records; by which error, only a commit
        tells, which cannot succeed.
        """
        self._broken = False
        producer = self._producer
        try:
            _bounded(lambda: producer.commit_transaction(TRY_SECONDS))
        except _Hangs:
            return  # aborting will hang as well, and is dealt with
        except KafkaException as failure:
            error = failure.args[0]
            self._raise_if_fatal(error)
            self._too_large |= error.code() == KafkaError.MSG_SIZE_TOO_LARGE

    def _shrink(self, text: str) -> RecordTooLarge:
        self._too_large = False
        self.limit = max(self.limit // 2, SMALLEST_LIMIT)
        self._log.warning("topic_takes_less", limit_bytes=self.limit, error=text)
        self.open(self._keep_trying)
        return RecordTooLarge(text)

    def close(self) -> None:
        """Let the client go, with its threads and connections."""
        del self._producer

    def _call(
        self,
        function: Callable[[], object],
        *,
        aborting: bool = False,
        otherwise: type[TransactionAborted] = TransactionAborted,
    ) -> None:
        """Call librdkafka, again while it says so. When it does not come back or come to an end, the client
        is abandoned: registering the id anew ends the transaction, and ``otherwise`` is raised.
        """
        give_up = time.monotonic() + self._deadline
        while True:
            try:
                _bounded(function)
                return
            except _Hangs:
                break
            except KafkaException as failure:
                error = failure.args[0]
                if error.retriable():
                    self._log.warning("transaction_retried", error=f"{error.name()}: {error.str()}")
                    if time.monotonic() < give_up:
                        continue
                    break
                if aborting:
                    self._raise_if_fatal(error)
                    raise Fatal(ExitCode.KAFKA, f"{self._name}: abort failed: {error.str()}") from failure
                raise self._failed(failure) from failure
        self._log.error("producer_abandoned", hint="a call does not come to an end; registering anew")
        self.open(self._keep_trying)
        raise otherwise(f"{self._name}: Kafka did not answer; the transaction was given up")

    def _failed(self, failure: KafkaException) -> Exception:
        error: KafkaError = failure.args[0]
        self._raise_if_fatal(error)
        text = f"{self._name}: {error.name()}: {error.str()}"
        if not error.txn_requires_abort():
            return Fatal(ExitCode.KAFKA, text)
        self._too_large |= error.code() == KafkaError.MSG_SIZE_TOO_LARGE
        try:
            self.abort()
        except RecordTooLarge as refused:
            return refused
        return TransactionAborted(text)

    def _raise_if_fatal(self, error: KafkaError) -> None:
        if error.code() in _FENCED:
            raise Fatal(
                ExitCode.FENCED,
                f"{self._name}: fenced by another producer or the transaction time-out: {error.str()}",
            )
        if error.fatal():
            raise Fatal(ExitCode.KAFKA, f"{self._name}: {error.name()}: {error.str()}")


_FENCED: Sequence[int] = (
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
)


class _Hangs(Exception):
    """A call did not come back long after its own time-out."""


def _bounded(function: Callable[[], object]) -> None:
    """Call ``function`` in a thread of its own and wait for it no longer than ``HANG_SECONDS``.

    librdkafka's send_offsets_to_transaction() ignores its time-out while a coordinator is away
    (confluentinc/librdkafka issues 5456 and 5511), and may never return. The wait is counted in steps: a
    process that was frozen has not waited.
    """
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def call() -> None:
        try:
            function()
        except Exception as error:
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=call, name="transaction-call", daemon=True).start()
    for _ in range(HANG_SECONDS):
        try:
            error = outcome.get(timeout=1.0)
        except queue.Empty:
            continue
        if error is not None:
            raise error
        return
    raise _Hangs
