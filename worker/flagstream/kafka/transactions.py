"""The transactional producer of a stage, with every error of librdkafka turned into what the caller has to
do.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from flagstream.chunk import Headers, Partition
from flagstream.crashpoints import crash_point
from flagstream.errors import TransactionAborted, TransactionUncertain
from flagstream.kafka.fences import Fences
from flagstream.kafka.registration import Registration
from flagstream.kafka.transaction_calls import TRY_SECONDS, Hangs, TransactionCalls
from flagstream.kafka.transaction_errors import (
    NotQueued,
    QueueFull,
    RecordTooLarge,
    TransactionRefused,
    described,
)
from flagstream.kafka.transaction_recovery import TransactionRecovery
from flagstream.operate import sleeping
from flagstream.operate.health import Problem

__all__ = ["NotQueued", "QueueFull", "RecordTooLarge", "TransactionRefused", "TransactionalProducer"]


class TransactionalProducer:
    """One producer, one transaction at a time.

    The calls block: a stage makes them from a thread of its own, one at a time. ``begin``, ``produce``,
    ``produce_batch``, ``release_delivered`` and ``problems`` may also be called on the event loop.

    ``stable``: the transactional.id is the same after a restart, so opening ends what the predecessor left.
    ``deadline`` (seconds) is how long a call that may be repeated is repeated. ``make``, ``clock``, ``sleep``
    and ``stood_still_since`` are for tests.

    A transaction that fails leaves the producer usable. It is rolled back; where the brokers do not know the
    producer as it knows itself, the id is registered again instead, which ends the transaction. The first
    error is the one that is raised.
    """

    def __init__(
        self,
        properties: Mapping[str, Any],
        *,
        stable: bool,
        deadline: float = 60.0,
        make: Callable[..., Producer] = Producer,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        stood_still_since: Callable[[float, float], bool] = sleeping.PROCESS.stood_still_since,
    ) -> None:
        self.stable = stable
        self._name = str(properties["transactional.id"])
        self._timeout = float(properties.get("transaction.timeout.ms", 60_000)) / 1000
        self._clock = clock
        self._calls = TransactionCalls(self._name, deadline, clock, sleep)
        self._registration = Registration(self._name, properties, self._calls, make)
        fences = Fences(self._name, self._timeout, clock, stood_still_since)
        self._recovery = TransactionRecovery(self._name, self._calls, self._registration, fences)
        self._broken = False
        """The open transaction accepts no more records; only an attempt to commit reveals the error."""
        self._lost: KafkaError | None = None
        """The error with which the client has become useless."""
        self._topics: set[str] = set()
        """Topics that the open transaction has written to."""
        self._began = clock()

    @property
    def limit(self) -> int:
        """The largest record, in bytes, that the topics take; callers must not hand in larger ones."""
        return self._registration.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._registration.limit = limit

    def open(self, keep_trying: Callable[[], bool] = lambda: True) -> None:
        """Register with the transaction coordinator, which ends whatever this id left open before.

        Tries until the coordinator answers or ``keep_trying`` returns False; :meth:`problems` reports what
        this waits for.
        """
        self._calls.keep_trying = keep_trying
        sleeping.PROCESS.start()
        self._registration.register()

    def close(self) -> None:
        """Let the client go, with its threads and connections."""
        self._registration.close()

    def problems(self) -> Iterator[Problem]:
        """Yield what Kafka keeps the producer waiting for, while it does. May be called from any thread."""
        return self._calls.problems(self._topics)

    # ── filling a transaction ────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Start a transaction, without blocking. Raises NotQueued; the caller aborts."""
        self._broken, self._lost = False, None
        self._topics, self._began = set(), self._clock()
        try:
            self._registration.client.begin_transaction()
        except KafkaException as failure:
            self._lost = failure.args[0]
            raise NotQueued(f"no transaction begins: {failure}") from failure

    def release_delivered(self) -> None:
        """Free the memory of the records that are delivered; otherwise the commit does."""
        self._registration.poll(0)

    def produce_batch(self, topic: str, records: list[dict[str, Any]]) -> None:
        """Add records (``value`` and ``key``), partitioned by key. Does not block.

        Raises QueueFull; NotQueued, after which the caller aborts.
        """
        self._topics.add(topic)
        try:
            queued = self._registration.client.produce_batch(topic, records)
        except (KafkaException, BufferError) as failure:
            raise NotQueued(f"records for {topic} not queued: {_reason(failure, topic)}") from failure
        if queued != len(records):
            errors = [record["_error"] for record in records if "_error" in record]
            if all(error.code() == KafkaError._QUEUE_FULL for error in errors):
                # librdkafka takes none after the first that finds no room, so they stay in order.
                for record in records[queued:]:
                    del record["_error"]
                raise QueueFull(queued)
            self._broken = any(error.code() == KafkaError._STATE for error in errors)
            first = next(error for error in errors if error.code() != KafkaError._QUEUE_FULL)
            reason = described(first, (topic,))
            raise NotQueued(f"{len(records) - queued} records for {topic} not queued: {reason}")

    def produce(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp: int = 0,
        wait: float = TRY_SECONDS,
    ) -> None:
        """Add one record. ``timestamp``: ms since the epoch, 0 for the time of sending.

        Blocks for up to ``wait`` seconds while the client's queue is full. Raises QueueFull; NotQueued, after
        which the caller aborts.
        """
        self._topics.add(topic)
        client = self._registration.client
        give_up = time.monotonic() + wait
        while True:
            try:
                client.produce(topic, value, key, headers=cast(Any, headers) or None, timestamp=timestamp)
                return
            except BufferError as failure:
                if time.monotonic() >= give_up:
                    raise QueueFull(0) from failure
                self._registration.poll(0.1)  # delivery reports stay in the queue until they are read
            except KafkaException as failure:
                self._broken = failure.args[0].code() == KafkaError._STATE
                raise NotQueued(f"record for {topic} not queued: {_reason(failure, topic)}") from failure

    # ── ending it ────────────────────────────────────────────────────────────

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], group_metadata: Any) -> None:
        """Commit records and ``offsets`` (next offset and metadata text of each partition) as one.

        Returns when the commit is certain. Raises TransactionAborted when the transaction was rolled back
        (TransactionRefused and RecordTooLarge say why); TransactionUncertain when it has ended and only the
        committed offsets show how; Fatal when another process holds the id.
        """
        targets = [TopicPartition(p.topic, p.index, offset, text) for p, (offset, text) in offsets.items()]
        client = self._registration.client
        self._end(
            "send_offsets_to_transaction",
            lambda: client.send_offsets_to_transaction(targets, group_metadata, TRY_SECONDS),
        )
        crash_point("transaction.offsets_sent")
        self._end("commit_transaction", lambda: client.commit_transaction(TRY_SECONDS), committing=True)
        self._registration.poll(0)

    def abort(self) -> None:
        """Roll the open transaction back. Raises TransactionAborted, or a subclass, with the reason if Kafka
        has broken the transaction before, and Fatal if another process holds the id.
        """
        error = self._lost or (self._recovery.broken_by() if self._broken else None)
        self._broken, self._lost = False, None
        if error is not None:
            raise self._recovery.after(error, self._topics, self._began)
        client = self._registration.client
        self._end("abort_transaction", lambda: client.abort_transaction(TRY_SECONDS))
        self._registration.poll(0)

    def takes(self, topic: str, records: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether ``topic`` takes ``records`` (arguments of ``produce``). They are tried in a
        transaction that is rolled back; none may be open. Raises TransactionAborted if something else is
        wrong.
        """
        try:
            self.begin()
        except NotQueued as error:
            self.abort()  # raises what has ended the client
            raise TransactionAborted(str(error)) from error
        self._topics.add(topic)
        refused, answered = self._tried(topic, records)
        try:
            self.abort()
        except TransactionRefused as reason:
            if reason.of_a_record:
                return False
            raise
        if refused or not answered:
            raise TransactionAborted(f"{self._name}: {topic} did not answer")
        return True

    def _tried(self, topic: str, records: Sequence[Mapping[str, Any]]) -> tuple[list[KafkaError], bool]:
        """Deliver ``records`` inside of the open transaction. Returns the errors of those that were refused,
        and whether the brokers have answered for all of them in time.
        """
        client = self._registration.client
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: object) -> None:
            if error is not None:
                refused.append(error)

        by_the_client = False
        give_up = self._clock() + self._timeout
        for record in records:
            while not refused and self._clock() < give_up:
                try:
                    client.produce(topic, on_delivery=delivered, **record)
                    break
                except BufferError:
                    self._registration.poll(0.1)
                except KafkaException as failure:
                    # An earlier record has broken the transaction; or the client itself refuses this one,
                    # which breaks nothing: then no commit must be tried to learn the error.
                    by_the_client = failure.args[0].code() != KafkaError._STATE
                    refused.append(failure.args[0])
        left = 1
        with suppress(KafkaException):
            left = client.flush(self._timeout)
        self._broken = bool(refused) and not by_the_client
        return refused, not left

    # ── what may go wrong ────────────────────────────────────────────────────────────

    def _end(self, call: str, function: Callable[[], object], *, committing: bool = False) -> None:
        """Make a call that ends the transaction. If it fails, make the producer usable again, and raise what
        the caller has to know.
        """
        try:
            self._calls.until_done(call, function, self._describe)
        except Hangs:
            problem = self._calls.problem
            text = f"{self._name}: {call} did not come to an end" + (problem and f": {problem}")
            self._registration.abandon(text)
            kind = TransactionUncertain if committing else TransactionAborted
            raise kind(text) from None
        except KafkaException as failure:
            error = self._recovery.after(failure.args[0], self._topics, self._began, committing=committing)
            raise error from failure

    def _describe(self, error: KafkaError) -> str:
        return self._recovery.described(error, self._topics)


def _reason(failure: Exception, topic: str) -> str:
    """Why a record for ``topic`` was not queued, for people."""
    if not isinstance(failure, KafkaException):
        return str(failure)
    return described(failure.args[0], (topic,))
