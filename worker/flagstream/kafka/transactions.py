"""The transactional producer of a stage, with every error of librdkafka turned into what the caller has to
do.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from flagstream.chunk import Headers, Partition
from flagstream.crashpoints import crash_point
from flagstream.errors import ExitCode, Fatal, FlagstreamError, TransactionAborted, TransactionUncertain
from flagstream.kafka.bounded import Hangs, bounded
from flagstream.kafka.transaction_errors import (
    FENCED,
    OF_A_RECORD,
    OF_A_TOPIC,
    UNKNOWN_STATE,
    UNSUPPORTED,
    TransactionRefused,
    aborted,
    described,
)
from flagstream.librdkafka_text import LOGGER, words
from flagstream.operate import sleeping
from flagstream.operate.health import Problem
from flagstream.operate.retry import Backoff
from flagstream.record_limits import DEFAULT_LIMIT, SMALLEST_LIMIT

__all__ = [
    "NotQueued",
    "QueueFull",
    "RecordTooLarge",
    "TransactionRefused",
    "TransactionalProducer",
]

log = structlog.get_logger(__name__)

TRY_SECONDS = 5.0
"""Bound of one try of a transactional call; a retriable one is repeated until ``deadline``."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between tries of a call that may be repeated: some errors that librdkafka calls retriable come back
at once.
"""
FIRST_REGISTRATION_PAUSE, LONGEST_REGISTRATION_PAUSE = 0.5, 10.0
"""Seconds between tries to register with the transaction coordinator."""
SLOW_SECONDS = 3.0
"""How long a transactional call may take before it is a problem; *measured*: some 10 ms."""
TROUBLE_SECONDS = 60.0
"""How long after any trouble with the brokers a fence is put down to it, rather than to another holder of the
id: failovers come in series, as brokers are restarted one after the other.
"""
FENCES, FENCES_SECONDS = 5, 300.0
"""So many fences within so many seconds show another holder, come what may: both register in turn."""


class NotQueued(FlagstreamError):
    """The open transaction cannot take the record; it has to be aborted."""


class QueueFull(NotQueued):
    """The client's queue has no room. The first ``queued`` records are in it, and the rest may be handed in
    again when brokers have taken some.
    """

    def __init__(self, queued: int) -> None:
        super().__init__("the client's queue stays full: the brokers take records too slowly")
        self.queued = queued


class RecordTooLarge(TransactionAborted):
    """The broker refused a batch as too large for its topic; the producer was opened again with half the
    limit.
    """


class TransactionalProducer:
    """One producer, one transaction at a time. Blocking: called from a thread of the stage's own, one call at
    a time; ``begin``, ``produce``, ``produce_batch`` and ``problems`` also from the event loop.

    ``limit`` is the largest record, in bytes, that the topics take; larger ones must not be handed in.
    ``stable``: the transactional.id is the same after a restart, so opening ends what the predecessor left.
    ``deadline``
    (seconds) is how long a call that may be repeated is repeated.

    A transaction that fails leaves the producer usable: it is rolled back, or, where the brokers do not know
    the producer as it knows itself, the id is registered anew, which ends the transaction. The first error is
    the one that is raised. ``make``, ``clock``, ``sleep`` and ``stood_still_since`` are for tests.
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
        self._properties = dict(properties)
        self._deadline = deadline
        self.stable = stable
        self.limit = DEFAULT_LIMIT
        self._make = make
        self._clock = clock
        self._sleep = sleep
        self._stood_still_since = stood_still_since
        self._keep_trying: Callable[[], bool] = lambda: True
        self._name = str(properties["transactional.id"])
        self._timeout = float(properties.get("transaction.timeout.ms", 60_000)) / 1000
        self._log = log.bind(transactional_id=self._name)
        self._broken = False
        """The open transaction takes no more records; by which error, only a commit tells."""
        self._lost: KafkaError | None = None
        """The error with which the client has become useless."""
        self._topics: set[str] = set()
        """Topics that the open transaction has written to."""
        self._began = clock()
        self._troubled_at = float("-inf")
        self._fences: list[float] = []
        self._call_since: tuple[str, float] | None = None
        self._problem = ""

    # ── registration ────────────────────────────────────────────────────────────

    def open(self, keep_trying: Callable[[], bool] = lambda: True) -> None:
        """Register with the transaction coordinator, which ends whatever this id left open before.

        Tried until the coordinator answers or ``keep_trying`` says no; :meth:`problems` says what is
        waited for.
        """
        self._keep_trying = keep_trying
        sleeping.PROCESS.start()
        self._register()

    def _register(self) -> None:
        backoff = Backoff(FIRST_REGISTRATION_PAUSE, LONGEST_REGISTRATION_PAUSE)
        self._broken, self._lost = False, None
        connected = False
        self._call_since = ("init_transactions", self._clock())
        try:
            while self._keep_trying():
                try:
                    if not connected:
                        self._connect()
                        connected = True
                    bounded(lambda: self._producer.init_transactions(TRY_SECONDS))
                    self._problem = ""
                    return
                except Hangs:
                    self._note("init_transactions does not come back")
                    connected = False
                except KafkaException as failure:
                    error: KafkaError = failure.args[0]
                    self._note(described(error, ()))
                    if not error.retriable() or error.code() in UNSUPPORTED:
                        connected = False  # a client with a fatal error answers nothing else
                self._log.warning("transactions_not_ready", error=self._problem)
                self._pause(backoff.next_pause())
        finally:
            self._call_since = None

    def _connect(self) -> None:
        self._producer = self._make(
            {
                **self._properties,
                **self._room_for_one(),
                # No delivery callback: each would want the interpreter for itself, 100,000 times a commit.
                "message.max.bytes": self.limit,
                "error_cb": self._on_error,
            },
            logger=LOGGER,
        )

    def _room_for_one(self) -> dict[str, int]:
        """A record that is larger than the client's queue would find no room for ever."""
        name = "queue.buffering.max.kbytes"
        if name not in self._properties:
            return {}
        return {name: max(int(self._properties[name]), self.limit // 1024 + 1)}

    def _on_error(self, error: KafkaError) -> None:
        """librdkafka lost a broker, or the like, and goes on by itself."""
        self._troubled_at = self._clock()

    # ── a transaction ────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Start a transaction. Local, does not block. Raises NotQueued; the caller aborts."""
        self._broken, self._lost = False, None
        self._topics, self._began = set(), self._clock()
        try:
            self._producer.begin_transaction()
        except KafkaException as failure:
            self._lost = failure.args[0]
            raise NotQueued(f"no transaction begins: {failure}") from failure

    def release_delivered(self) -> None:
        """Let go of the records that are delivered; they stay in memory otherwise, until the commit."""
        self._poll(0)

    def _poll(self, seconds: float) -> None:
        """Let librdkafka make its calls. It raises a fatal error in whichever poll comes next; all that goes
        on with the client from then on fails by itself, and says why.
        """
        with suppress(KafkaException):
            self._producer.poll(seconds)

    def produce_batch(self, topic: str, records: list[dict[str, Any]]) -> None:
        """Add records (``value`` and ``key``), partitioned by key. Does not block.

        Raises QueueFull; NotQueued, after which the caller aborts.
        """
        self._topics.add(topic)
        try:
            queued = self._producer.produce_batch(topic, records)
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
            told = next(error for error in errors if error.code() != KafkaError._QUEUE_FULL)
            reason = described(told, (topic,))
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

        Blocks for up to ``wait`` seconds where the client's queue is full. Raises QueueFull; NotQueued, after
        which the caller aborts.
        """
        self._topics.add(topic)
        give_up = time.monotonic() + wait
        while True:
            try:
                self._producer.produce(
                    topic, value, key, headers=cast(Any, headers) or None, timestamp=timestamp
                )
                return
            except BufferError as failure:
                if time.monotonic() >= give_up:
                    raise QueueFull(0) from failure
                self._poll(0.1)  # delivery reports keep their place in the queue until they are read
            except KafkaException as failure:
                self._broken = failure.args[0].code() == KafkaError._STATE
                raise NotQueued(f"record for {topic} not queued: {_reason(failure, topic)}") from failure

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], group_metadata: Any) -> None:
        """Commit records and ``offsets`` (next offset and metadata text of each partition) as one.

        Returns when the commit is certain. Raises TransactionAborted when the transaction was rolled back
        (TransactionRefused and RecordTooLarge say why), TransactionUncertain when it has ended and only the
        committed offsets tell how, Fatal when another process holds the id.
        """
        targets = [TopicPartition(p.topic, p.index, offset, text) for p, (offset, text) in offsets.items()]
        producer = self._producer
        self._try(
            "send_offsets_to_transaction",
            lambda: producer.send_offsets_to_transaction(targets, group_metadata, TRY_SECONDS),
        )
        crash_point("transaction.offsets_sent")
        self._try("commit_transaction", lambda: producer.commit_transaction(TRY_SECONDS), committing=True)
        self._poll(0)

    def abort(self) -> None:
        """Roll the open transaction back. Raises TransactionAborted, or a subclass, with the reason where
        Kafka has broken it, and Fatal where another process holds the id.
        """
        error = self._lost or (self._broken_by() if self._broken else None)
        if error is not None:
            raise self._recovered(error)
        producer = self._producer
        self._try("abort_transaction", lambda: producer.abort_transaction(TRY_SECONDS))
        self._poll(0)

    def _broken_by(self) -> KafkaError | None:
        """A transaction that a failed delivery broke takes no more records; by which error, only a commit
        tells, which cannot succeed.
        """
        producer = self._producer
        try:
            bounded(lambda: producer.commit_transaction(TRY_SECONDS))
        except Hangs:
            return None  # aborting will hang as well, and is dealt with
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            return None if error.retriable() else error
        return None

    def takes(self, topic: str, records: Sequence[Mapping[str, Any]]) -> bool:
        """Whether ``topic`` takes ``records`` (arguments of ``produce``), by trying it in a transaction that
        is rolled back. None is open before and after. Raises TransactionAborted where something else is
        wrong.
        """
        refused: list[KafkaError] = []

        def told(error: KafkaError | None, message: object) -> None:
            if error is not None:
                refused.append(error)

        try:
            self.begin()
        except NotQueued as error:
            self.abort()  # raises what has ended the client
            raise TransactionAborted(str(error)) from error
        self._topics.add(topic)
        local = False
        give_up = self._clock() + self._timeout
        for record in records:
            while not refused and self._clock() < give_up:
                try:
                    self._producer.produce(topic, on_delivery=told, **record)
                    break
                except BufferError:
                    self._poll(0.1)
                except KafkaException as failure:
                    # One of those before has broken it; or the client itself refuses this one, which breaks
                    # nothing: what is in the transaction must not be committed to learn the error.
                    local = failure.args[0].code() != KafkaError._STATE
                    refused.append(failure.args[0])
        left = 1
        with suppress(KafkaException):
            left = self._producer.flush(self._timeout)
        self._broken = bool(refused) and not local
        try:
            self.abort()
        except TransactionRefused as reason:
            if reason.of_a_record:
                return False
            raise
        if refused or left:
            raise TransactionAborted(f"{self._name}: {topic} did not answer")
        return True

    def close(self) -> None:
        """Let the client go, with its threads and connections."""
        del self._producer

    # ── what may go wrong ────────────────────────────────────────────────────────────

    def problems(self) -> Iterator[Problem]:
        """What Kafka keeps the producer waiting for, while it does. From any thread."""
        calling = self._call_since
        if calling is None:
            return
        name, since = calling
        took = self._clock() - since
        problem = self._problem
        if problem or took > SLOW_SECONDS:
            topics = ", ".join(sorted(self._topics)) or "no topic yet"
            about = problem or f"the brokers do not answer (the transaction writes to {topics})"
            text = f"transactional.id {self._name}: {name} goes on for {took:.0f} s: {about}"
            yield Problem("transaction", text)

    def _try(self, name: str, function: Callable[[], object], *, committing: bool = False) -> None:
        """Make the call; raises what the caller has to know when it fails."""
        try:
            self._call(name, function)
        except Hangs:
            text = f"{self._name}: {name} did not come to an end" + (self._problem and f": {self._problem}")
            self._abandon(text)
            kind = TransactionUncertain if committing else TransactionAborted
            raise kind(text) from None
        except KafkaException as failure:
            raise self._recovered(failure.args[0], committing=committing) from failure

    def _call(self, name: str, function: Callable[[], object]) -> None:
        """Call librdkafka, again while it says so and the deadline is not reached. Raises KafkaException for
        an error that no repetition mends, Hangs where the call does not come to an end.
        """
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        give_up = self._clock() + self._deadline
        self._problem = ""
        self._call_since = (name, self._clock())
        try:
            while True:
                try:
                    bounded(function)
                    return
                except KafkaException as failure:
                    error: KafkaError = failure.args[0]
                    if not error.retriable() or error.code() in UNSUPPORTED:
                        raise
                    self._note(described(error, self._topics) + self._missing_topics())
                self._log.warning("transaction_retried", call=name, error=self._problem)
                if self._clock() >= give_up:
                    raise Hangs
                self._pause(backoff.next_pause())
        finally:
            self._call_since = None

    def _missing_topics(self) -> str:
        """What the brokers say of topics that the transaction has written to, for people."""
        wrong = []
        for topic in sorted(self._topics):
            try:
                error = self._producer.list_topics(topic, timeout=TRY_SECONDS).topics[topic].error
            except KafkaException:
                return ""
            if error is not None:
                wrong.append(f"; topic {topic}: {words(error)}")
        return "".join(wrong)

    def _recovered(self, error: KafkaError, *, committing: bool = False) -> Exception:
        """Make the producer usable after ``error``, the transaction's first one. Returns what to raise."""
        if error.code() == KafkaError._STATE and error.txn_requires_abort():
            error = self._broken_by() or error  # a delivery failed meanwhile
        text = self._text(error)
        if error.code() == KafkaError._INCONSISTENT:  # deliveries failed; by which error, it does not say
            text += self._missing_topics()
        fence = error if error.code() in FENCED else None
        usable = (
            error.code() not in FENCED | UNKNOWN_STATE
            and (error.txn_requires_abort() or error.code() in UNSUPPORTED)
            and not error.fatal()
        )
        if usable and (failed := self._roll_back()) is not None:
            usable = False
            # What failed first may be what time alone does to a process that stood still.
            fence = failed if isinstance(failed, KafkaError) and failed.code() in FENCED else None
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE and self.limit > SMALLEST_LIMIT:
            self.limit = max(self.limit // 2, SMALLEST_LIMIT)
            self._log.warning("topic_takes_less", limit_bytes=self.limit, error=text)
            self._register()
            return RecordTooLarge(text)
        if not usable:
            if fence is not None and (holder := self._other_holder(fence)) is not None:
                return holder
            self._abandon(text)
        elif error.code() in OF_A_RECORD:
            self._register()  # librdkafka has counted the batch, the broker has not: the next is out of order
        # What a topic has refused was not delivered, so no commit was sent. By its code: a text may name a
        # topic by chance.
        if committing and not usable and error.code() not in OF_A_RECORD | OF_A_TOPIC:
            return TransactionUncertain(text)
        return aborted(error, self._topics, text)

    def _roll_back(self) -> KafkaError | Hangs | None:
        """Roll back after an error. Returns what kept it from that, such as that nothing could be added to
        the transaction: Kafka then knows of none.
        """
        producer = self._producer
        try:
            self._call("abort_transaction", lambda: producer.abort_transaction(TRY_SECONDS))
        except (Hangs, KafkaException) as failure:
            self._log.info("transaction_abandoned", error=str(failure))  # and aborted by registering anew
            return failure if isinstance(failure, Hangs) else failure.args[0]
        self._poll(0)
        return None

    def _abandon(self, text: str) -> None:
        self._note(text)
        self._log.error("producer_abandoned", error=text, hint="the id is registered anew")
        self._register()

    def _other_holder(self, error: KafkaError) -> Fatal | None:
        """The error to raise if another holder of the id is really there. None: Kafka itself has ended the
        transaction, so the id is registered anew and the committed offsets decide.

        A frozen process counts as replaced: while it stood still, others have taken over what it held.
        """
        self._poll(0)  # lets librdkafka tell of lost brokers
        now = self._clock()
        troubled = now - self._troubled_at < TROUBLE_SECONDS
        timed_out = now - self._began >= self._timeout
        self._fences = [then for then in self._fences if now - then < FENCES_SECONDS] + [now]
        # Most of the time that the transaction had: with a short time-out a short sleep is enough.
        still = min(sleeping.STILL_SECONDS, self._timeout / 2)
        stood_still = self._stood_still_since(self._began, still)
        if (troubled or timed_out) and not stood_still and len(self._fences) < FENCES:
            return None
        why = "after the process stood still" if stood_still else "by another producer"
        return Fatal(ExitCode.FENCED, f"{self._name}: fenced {why}: {error.name()}: {words(error)}")

    def _text(self, error: KafkaError) -> str:
        return f"{self._name}: {described(error, self._topics)}"

    def _note(self, problem: str) -> None:
        self._problem = problem
        self._troubled_at = self._clock()

    def _pause(self, seconds: float) -> None:
        """Wait, but not after ``keep_trying`` says no."""
        while seconds > 0 and self._keep_trying():
            self._sleep(min(seconds, 0.5))
            seconds -= 0.5


def _reason(failure: Exception, topic: str) -> str:
    """Why a record for ``topic`` was not queued, for people."""
    if not isinstance(failure, KafkaException):
        return str(failure)
    return described(failure.args[0], (topic,))
