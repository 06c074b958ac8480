"""Exports to a topic of another cluster. No transaction spans two clusters: at least once."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from flagstream.chunk import Partition
from flagstream.errors import SinkError, SinkRefused, SinkRefusesAll, SinkUnavailable
from flagstream.librdkafka import plain
from flagstream.librdkafka_text import LOGGER, words
from flagstream.outcomes import Proof
from flagstream.record_limits import DEFAULT_LIMIT, MAX_BYTES, reported_limit, too_small
from flagstream.sinks.kafka.records import Produce, RecordEncoder, Records, preview
from flagstream.sinks.kafka.settings import KafkaSinkSettings, fingerprint
from flagstream.sinks.protocol import Delivery, Preview
from flagstream.window import Manifest, OffsetRange

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 10.0
QUEUE_KBYTES = 64 * 1024
"""What the producer may hold of records that are not acknowledged; when it is full, deliveries wait."""
_UNSEEN = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
_REFUSED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
    }
)
"""Errors that no retry mends: a person has to act."""
_ABOUT_RECORDS = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.POLICY_VIOLATION,
    KafkaError._INVALID_DIFFERENT_RECORD,
}
"""Errors that judge the records, not the sender or the topic."""
_USELESS = {
    KafkaError._FATAL,
    KafkaError.UNKNOWN_PRODUCER_ID,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
    KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
"""The brokers do not know the producer as it knows itself, after a long rest for example: another is made."""
LIMIT_SECONDS = 300.0
"""How old the topic's limit may be: people change it while workers run."""


class _Reports:
    """The delivery reports of some records of a window, by index. librdkafka calls them in the thread that
    polls the producer. ``failures`` holds the records that were refused, each with its error.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.taken: set[int] = set()
        self.failures: dict[int, KafkaError] = {}

    @property
    def received(self) -> int:
        with self._lock:
            return len(self.taken) + len(self.failures)

    def of(self, index: int) -> Callable[[KafkaError | None, object], None]:
        """Return the callback that librdkafka calls for the record."""

        def report(error: KafkaError | None, message: object) -> None:
            with self._lock:
                if error is None:
                    self.taken.add(index)
                else:
                    self.failures[index] = error

        return report


class OtherClusterSink:
    """Satisfies :class:`flagstream.sinks.protocol.Sink`. One idempotent producer, shared by all deliveries.

    Within one try, librdkafka itself neither doubles nor reorders records. Records that are not acknowledged
    are sent again. If a worker dies before the offset is committed, the next one sends the whole window.

    A broker refuses whole batches. So the records of a refused batch are sent again in halves, down to the
    record, and one bad event takes no others with it.
    """

    unit = "records"

    def __init__(self, settings: KafkaSinkSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit_asked = -math.inf
        self.fingerprint = fingerprint(settings)
        self._settings = settings
        self._limit = DEFAULT_LIMIT
        self._opening = threading.Lock()
        self._producer: Producer | None = None
        self._said: list[KafkaError] = []
        self._fatal: KafkaError | None = (
            None  # the error that ended a producer; librdkafka reports it to one thread only
        )
        self._refused_in_a_row = 0
        self._unseen_logged = False

    def open(self) -> None:
        self._ready()

    def begin(self, partition: Partition, start: int) -> RecordEncoder:
        return RecordEncoder(partition, event_ids=self._settings.event_ids, limit=self._limit)

    def deliver(self, manifest: Manifest, payload: Records) -> Delivery:
        """Send the window's records that are not acknowledged yet; return when all in-sync replicas have
        acknowledged every one.

        If some records are refused for their content, the others are sent all the same, and the error names
        the refused ones.
        """
        shared = producer = self._ready()
        refused: dict[int, str] = {}
        groups = [[index for index in range(len(payload)) if index not in payload.taken]]
        while groups:
            group = groups.pop()
            failures = self._send_all(producer, payload, group)
            if len(group) == 1:
                refused |= {payload[index].offset: self._text(error) for index, error in failures.items()}
                if not payload.taken and self._refused_in_a_row + len(refused) >= SinkRefusesAll.AFTER:
                    raise SinkRefusesAll(f"every record is refused: {refused[payload[group[0]].offset]}")
            elif failures:
                if producer is shared:  # its batches may hold records of other windows
                    producer = self._made(self._topic_limit())
                again = sorted(failures)
                groups += [half for half in (again[len(again) // 2 :], again[: len(again) // 2]) if half]
        self._refused_in_a_row = 0 if payload.taken else self._refused_in_a_row + len(refused)
        if refused:
            first = min(refused)
            text = f"{len(refused)} of {len(payload)} records are refused, such as that of offset {first}: "
            raise SinkRefused(text + refused[first], events=refused)
        return Delivery(
            created=len(payload), existing=0, bytes=sum(len(r.key) + len(r.value) for r in payload)
        )

    def holdings(self, partition: Partition, start: int) -> Sequence[OffsetRange] | None:
        return None

    def probe(self) -> Iterator[Proof]:
        try:
            self._ready()
        except SinkError as error:
            yield Proof("topic", "failed", str(error))
            return
        yield Proof("topic", "proved", f"{self._settings.topic} is there")
        yield Proof("write", "unproved", "readers of the topic would see the record")

    def preview(self, manifest: Manifest, payload: Sequence[Produce]) -> Preview:
        return preview(self._settings.topic, payload)

    def close(self) -> None:
        with self._opening:
            self._producer = None

    def _send_all(self, producer: Producer, payload: Records, group: Sequence[int]) -> dict[int, KafkaError]:
        """Send these records of the window; return those that the topic refuses for their content, or because
        their batch holds such records. Raises SinkError for any other failure.
        """
        reports = _Reports()
        give_up = time.monotonic() + self._settings.timeout + ANSWER_SECONDS
        try:
            for index in group:
                self._send(producer, payload[index], reports.of(index), give_up)
            while reports.received < len(group):
                producer.poll(0.1)
                if time.monotonic() > give_up:
                    missing = len(group) - reports.received
                    raise SinkUnavailable(f"{self._settings.topic}: {missing} records are not acknowledged")
        except KafkaException as failure:  # poll() raises what the producer cannot go on after, once
            self._fatal = failure.args[0]
            raise self._failed(producer, failure.args[0]) from failure
        finally:
            payload.taken.update(reports.taken)
        for error in reports.failures.values():
            if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                self._limit_asked = -math.inf  # it takes less than it did
            if error.code() not in _ABOUT_RECORDS:
                raise self._failed(producer, error)
        return reports.failures

    def _failed(self, producer: Producer, error: KafkaError) -> SinkError:
        failure = self._error(self._cause(producer, error))
        # After a denial make a new client: the old one may have had old credentials.
        denied = isinstance(failure, SinkRefused) and failure.denied
        if error.fatal() or error.code() in _USELESS or denied:
            self._abandon(producer)
        return failure

    def _cause(self, producer: Producer, error: KafkaError) -> KafkaError:
        """Return the error that ended the producer, if ``error`` only says that it has ended. Without the
        right to write, for example, the brokers give no producer id.
        """
        if error.code() != KafkaError._FATAL:
            return error
        try:
            producer.poll(0)
        except KafkaException as failure:
            self._fatal = failure.args[0]
        return self._fatal or error

    def _send(
        self, producer: Producer, record: Produce, report: Callable[[Any, Any], None], give_up: float
    ) -> None:
        while True:
            try:
                producer.produce(self._settings.topic, record.value, record.key, on_delivery=report)
                return
            except BufferError:
                producer.poll(0.1)
                if time.monotonic() > give_up:
                    raise SinkUnavailable(f"{self._settings.topic}: the client's queue stays full") from None
            except KafkaException as failure:
                error: KafkaError = failure.args[0]
                if error.code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise self._failed(producer, error) from failure
                report(error, None)  # encoded before the limit became known
                return

    def _ready(self) -> Producer:
        with self._opening:
            if self._producer is not None and self._clock() - self._limit_asked > LIMIT_SECONDS:
                self._ask_again()
            if self._producer is None:
                self._limit, self._limit_asked = self._topic_limit(), self._clock()
                self._producer = self._made(self._limit)
            return self._producer

    def _made(self, limit: int) -> Producer:
        # Windows are copied into it as they are sent; librdkafka's own default is 1 GiB.
        queue = {"queue.buffering.max.kbytes": max(QUEUE_KBYTES, limit // 1024 + 1)}
        properties = {**queue, **self._properties(), **self._fixed(limit)}
        self._fatal = None
        try:
            return Producer(properties, logger=LOGGER)
        except KafkaException as failure:  # such as a file of certificates that is being replaced
            raise self._error(failure.args[0]) from failure

    def _ask_again(self) -> None:
        """Ask for the topic's limit again. A producer's limit is fixed, so a new limit needs a new
        producer.
        """
        self._limit_asked = self._clock()
        with suppress(SinkError):  # the delivery itself says what is wrong
            limit = self._topic_limit()
            if limit != self._limit:
                log.info("topic_limit_changed", topic=self._settings.topic, limit_bytes=limit)
                self._producer = None

    def _abandon(self, producer: Producer) -> None:
        """Give up a producer that reported a fatal error and sends nothing more; the next delivery makes
        one.
        """
        log.warning("producer_abandoned", topic=self._settings.topic)
        with self._opening:
            if self._producer is producer:
                self._producer = None

    def _topic_limit(self) -> int:
        """Return the largest record that the topic takes. Raises SinkRefused or SinkUnavailable."""
        settings = self._settings
        self._said.clear()
        try:
            client: dict[str, Any] = {**self._properties(), "error_cb": self._said.append}
            admin = AdminClient(client, logger=LOGGER)
        except KafkaException as failure:
            raise self._error(failure.args[0]) from failure
        try:
            topics = admin.list_topics(timeout=ANSWER_SECONDS).topics
        except KafkaException as failure:
            # A time-out gives no reason. librdkafka reports it to a callback, which poll() calls.
            admin.poll(0)
            reasons = (e for e in reversed(self._said) if e.code() != KafkaError._ALL_BROKERS_DOWN)
            raise self._error(next(reasons, failure.args[0])) from failure
        if settings.topic not in topics:
            raise SinkRefused(f"{settings.topic}: no such topic, or no right to see it", denied=True)
        resource = ConfigResource(ResourceType.TOPIC, settings.topic)
        answer = admin.describe_configs([resource], request_timeout=ANSWER_SECONDS)[resource]
        try:
            config = {name: str(entry.value) for name, entry in answer.result(ANSWER_SECONDS).items()}
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() not in _UNSEEN:
                raise self._error(error) from failure
            return DEFAULT_LIMIT  # no right to see it: the default, as for the worker's own topics
        if fault := too_small(config):
            raise SinkRefused(f"{settings.topic}: {fault}")
        limit = reported_limit(config)
        if limit is not None:
            return limit
        if not self._unseen_logged:
            self._unseen_logged = True
            log.warning(
                "topic_limit_unseen",
                topic=settings.topic,
                limit_bytes=DEFAULT_LIMIT,
                hint=f"the broker does not report {MAX_BYTES}; records above the default are dead letters",
            )
        return DEFAULT_LIMIT

    def _text(self, error: KafkaError) -> str:
        return f"{self._settings.topic}: {error.name()}: {words(error)}"

    def _error(self, error: KafkaError) -> SinkError:
        text = self._text(error)
        if error.code() not in _REFUSED:
            return SinkUnavailable(text)
        return SinkRefused(text, denied=error.code() not in _ABOUT_RECORDS)

    def _properties(self) -> dict[str, Any]:
        defaults = {"client.id": "flagstream", "log_level": 2}
        own = plain(self._settings.properties)
        return {**defaults, **own, "bootstrap.servers": self._settings.bootstrap_servers}

    def _fixed(self, limit: int) -> dict[str, Any]:
        return {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": self._settings.partitioner,
            "message.timeout.ms": round(self._settings.timeout * 1000),
            "message.max.bytes": limit,
        }
